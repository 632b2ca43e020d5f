import { createClient } from '@connectrpc/connect';
import {
  accessInterceptor,
  createAccessTokenVerifier,
  createLeaseSigner,
  createLeaseVerifier,
  createServiceTokenVerifier,
  identityKeys,
  publicJwkOf,
  serviceTransports,
} from '@mad/auth';
import { openCache } from '@mad/cache';
import { openChemistry } from '@mad/chemistry';
import { objectKeys, openObjectStore, sealedStore } from '@mad/object-store';
import { deleteExpiredIdempotencyKeys, openBoss, postgresErrorInterceptor } from '@mad/postgres';
import type { ServiceDeps } from '@mad/process';
import { AuditService, OrganizationService } from '@mad/proto/identity';
import { TenantService } from '@mad/proto/provisioner';
import { CacheService, ExecutionService, JobRunService, StorageService } from '@mad/proto/results';
import { serveRpc, type RpcServer } from '@mad/rpc';
import { deliverAudit } from './audit.ts';
import type { CatalogConfig } from './config.ts';
import type { CatalogContext } from './context.ts';
import { CONSTRAINT_MESSAGES, openCatalogDatabase } from './database.ts';
import { eraseStragglers } from './erasure.ts';
import { startRounds, workJobQueues } from './jobs/rounds.ts';
import { TaskSignal } from './jobs/task-signal.ts';
import { organizationsOf } from './organizations.ts';
import { pipelineVersionsIn } from './pipeline-versions.ts';
import { registerQueueMetrics } from './queue-metrics.ts';
import { catalogQueues, HOUSEKEEPING } from './queues.ts';
import { routes } from './routes.ts';
import { schemaValidator } from './schema-validator.ts';
import { seedCatalog } from './seed.ts';
import { taskDefinitionsIn } from './task-definitions.ts';

const EVERY_HOUR = '13 * * * *';

/** Catalog, serving. */
export interface RunningCatalog {
  /** gRPC. */
  port: number;
  /** Connect over HTTP/1.1. */
  connectPort: number;
  close(): Promise<void>;
}

/** The neighbours catalog calls, under its own name. */
function neighbours(config: CatalogConfig) {
  const to = serviceTransports({ service: 'catalog', privateJwk: config.servicePrivateJwk });
  const identity = to(config.identityAddress);
  const results = to(config.resultsAddress);
  const provisioner = to(config.provisionerAddress);
  return {
    organizations: createClient(OrganizationService, identity),
    keys: identityKeys(identity),
    audits: createClient(AuditService, identity),
    executions: createClient(ExecutionService, results),
    jobRuns: createClient(JobRunService, results),
    cache: createClient(CacheService, results),
    storage: createClient(StorageService, results),
    tenants: createClient(TenantService, provisioner),
    keysOfObjects: objectKeys(provisioner),
    close: () => [identity, results, provisioner].forEach((transport) => transport.close()),
  };
}

type Neighbours = ReturnType<typeof neighbours>;

function serve(
  config: CatalogConfig,
  context: CatalogContext,
  keys: Neighbours['keys'],
  deps: ServiceDeps,
): Promise<RpcServer> {
  const verifyUser = createAccessTokenVerifier({ jwks: keys });
  const verifyService = createServiceTokenVerifier({ keys: config.serviceKeys });
  return serveRpc({
    service: 'catalog',
    host: config.host,
    port: config.port,
    connectPort: config.connectPort,
    services: routes(context),
    interceptors: [accessInterceptor({ verifyUser, verifyService }), postgresErrorInterceptor(CONSTRAINT_MESSAGES)],
    ...deps,
  });
}

/** Starts catalog: checks the database, seeds what comes with the product, works its queues, serves. */
export async function startCatalog(config: CatalogConfig, deps: ServiceDeps): Promise<RunningCatalog> {
  const { logger, metrics } = deps;
  /** What is open, to be closed the last first. */
  const open = new AsyncDisposableStack();
  try {
    const database = await openCatalogDatabase(config.database, logger, metrics);
    open.defer(() => database.close());
    const caches = await openCache({ url: config.redisUrl, logger });
    open.defer(() => caches.close());
    const tasks = await TaskSignal.open(caches.pubSub);
    open.defer(() => tasks.close());
    const chemistry = openChemistry({ workers: config.chemistryWorkers });
    open.defer(() => chemistry.close());
    const { close: closeNeighbours, organizations, keys, audits, keysOfObjects, ...clients } = neighbours(config);
    open.defer(closeNeighbours);
    const boss = await openBoss({ url: config.bossUrl, schema: 'catalog_boss', queues: catalogQueues, ...deps });
    open.defer(() => boss.close());

    const caching = { cache: caches.cache, logger, metrics };
    const context: CatalogContext = {
      database,
      boss,
      chemistry,
      rdkitVersion: await chemistry.version(),
      objects: sealedStore(openObjectStore(config.objectStoreUrl), keysOfObjects),
      organizations: organizationsOf(organizations, caching),
      taskDefinitions: taskDefinitionsIn(database, caching),
      pipelineVersions: pipelineVersionsIn(database, caching),
      schemaValidator: schemaValidator(),
      signLease: createLeaseSigner(config.servicePrivateJwk),
      verifyLease: createLeaseVerifier(publicJwkOf(config.servicePrivateJwk)),
      identity: organizations,
      ...clients,
      provisioning: config.provisioning,
      queue: config.queue,
      tasks,
      ...deps,
    };
    await database.asSystem((tx) => seedCatalog(tx, context.rdkitVersion));
    registerQueueMetrics(context);
    await deliverAudit(boss, audits);
    await boss.work(HOUSEKEEPING, async () => {
      await database.asSystem((tx) => deleteExpiredIdempotencyKeys(tx, 'catalog'));
      await eraseStragglers(database);
    });
    await boss.schedule(HOUSEKEEPING, EVERY_HOUR);
    await workJobQueues(context);
    open.defer(startRounds(context));

    const server = await serve(config, context, keys, deps);
    open.defer(() => {
      // Workers that wait for tasks would be waited for.
      context.tasks.end();
      return server.close();
    });
    return { port: server.port, connectPort: server.connectPort, close: () => open.disposeAsync() };
  } catch (error) {
    await open.disposeAsync();
    throw error;
  }
}
