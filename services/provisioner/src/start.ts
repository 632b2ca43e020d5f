import {
  accessInterceptor,
  createAccessTokenVerifier,
  createServiceTokenVerifier,
  identityKeys,
  publicJwkOf,
  serviceTransports,
} from '@mad/auth';
import { openObjectStore } from '@mad/object-store';
import { openBoss, openDatabase, postgresErrorInterceptor } from '@mad/postgres';
import type { ServiceDeps } from '@mad/process';
import { serveRpc, type RpcServer } from '@mad/rpc';
import { registerMetadataBackupMetrics } from './backups/metadata-metrics.ts';
import { scheduleBackups } from './backups/schedule.ts';
import type { ProvisionerConfig } from './config.ts';
import type { ProvisionerContext } from './context.ts';
import { provisionerEntities } from './db/schema.ts';
import { DriftKeeper } from './drift/drift-keeper.ts';
import { References } from './drift/references.ts';
import { ChangeFeed } from './provisioning/change-feed.ts';
import { RowOwners } from './erasure/row-owners.ts';
import { CleanupKeeper } from './operations/cleanup-keeper.ts';
import { Runs } from './operations/runs.ts';
import { Sweeper } from './operations/sweeper.ts';
import { RolloutKeeper } from './rollouts/rollout-keeper.ts';
import { ReconcileKeeper } from './reconcile/reconcile-keeper.ts';
import { RotationKeeper } from './rotation/rotation-keeper.ts';
import { deliverAuditEvents, QUEUES } from './queue.ts';
import { routes } from './routes.ts';
import { sealRegistration, upsertServer } from './servers/registration.ts';
import { SchemaOwners } from './servers/schema-owners.ts';
import { registerFleetMetrics } from './servers/tenant-metrics.ts';
import { ServerWatch } from './servers/server-watch.ts';
import { TopTenants } from './servers/top-tenants.ts';
import { ServerConnections } from './servers/server-connections.ts';
import { ShareKeeper } from './shares/share-keeper.ts';
import { StockKeeper } from './stock/stock-keeper.ts';

/**
 * Starts provisioner: registers the configured servers, goes on with what an earlier process left undone, serves.
 * Rejects when the metadata database is missing, not migrated, or would let the logins past row-level security.
 */
export async function startProvisioner(config: ProvisionerConfig, deps: ServiceDeps): Promise<RpcServer> {
  /** What is open, to be closed the last first. */
  const open = new AsyncDisposableStack();
  try {
    const { port, connectPort } = await compose(config, deps, open);
    return { port, connectPort, close: () => open.disposeAsync() };
  } catch (error) {
    await open.disposeAsync();
    throw error;
  }
}

async function compose(config: ProvisionerConfig, deps: ServiceDeps, open: AsyncDisposableStack): Promise<RpcServer> {
  const { logger } = deps;
  const { masterKeys: master, stepLeaseMs: leaseMs, rotateGraceMs } = config;
  const to = serviceTransports({ service: 'provisioner', privateJwk: config.servicePrivateJwk });

  const database = await openDatabase({
    url: config.databaseUrl,
    systemUrl: config.systemUrl,
    schema: 'provisioner',
    entities: provisionerEntities,
    poolSize: config.poolSize,
    systemPoolSize: config.systemPoolSize,
    applicationName: 'mad-provisioner',
    statementTimeoutMs: config.statementTimeoutMs,
    ...deps,
  });
  open.defer(() => database.close());
  // A key service that is away or whose key is unfit is said at the start, not at the first organization.
  await master.standing();
  for (const server of config.servers) {
    const secrets = await sealRegistration(master, server);
    await database.asSystem((tx) => upsertServer(tx, server, secrets, { limits: false }));
  }
  const identity = to(config.identityAddress);
  // Before the queue: its handlers finish before what they talk to is closed.
  open.defer(() => identity.close());
  const boss = await openBoss({ url: config.bossUrl, schema: 'provisioner_boss', queues: QUEUES, ...deps });
  open.defer(() => boss.close());

  const connections = new ServerConnections(master, logger);
  open.defer(() => connections.close());
  const owners = new SchemaOwners(config.tenantSchemas, to);
  open.defer(() => owners.close());
  const objects = openObjectStore(config.objectStoreUrl);
  const references = new References({ database, connections, owners });
  // Identity last: its status of the organization says that all is done.
  const rowOwners = new RowOwners({ catalog: config.catalogAddress, identity: config.identityAddress }, to);
  open.defer(() => rowOwners.close());
  const runs = new Runs({
    database,
    boss,
    master,
    connections,
    owners,
    references,
    objects,
    rowOwners,
    signingJwk: config.servicePrivateJwk,
    logger,
    leaseMs,
    rotateGraceMs,
  });
  const sweeper = new Sweeper({ database, runs, logger, leaseMs, everyMs: config.sweepMs });
  open.defer(() => sweeper.close());
  const cleanup = new CleanupKeeper({
    database,
    connections,
    logger,
    graceMs: config.cleanupGraceMs,
    everyMs: config.sweepMs,
  });
  open.defer(() => cleanup.close());
  const stock = new StockKeeper({
    database,
    connections,
    owners,
    logger,
    size: config.stockSize,
    perMinute: config.stockPerMinute,
    everyMs: config.sweepMs,
  });
  open.defer(() => stock.close());
  const shares = new ShareKeeper({ database, connections, logger, patienceMs: config.shareMs });
  open.defer(() => shares.close());
  const watch = new ServerWatch({ database, connections, logger, everyMs: config.serverSampleMs });
  open.defer(() => watch.close());
  const reconcile = new ReconcileKeeper({
    database,
    connections,
    owners,
    objects,
    logger,
    metrics: deps.metrics,
    everyMs: config.reconcileMs,
  });
  open.defer(() => reconcile.close());
  const drift = new DriftKeeper({
    database,
    connections,
    owners,
    references,
    logger,
    everyHours: config.driftEveryHours,
    everyMs: config.sweepMs,
  });
  open.defer(() => drift.close());
  const rotation = new RotationKeeper({
    database,
    connections,
    runs,
    master,
    logger,
    leaseMs,
    afterDays: config.rotateAfterDays,
    perMinute: config.rotatePerMinute,
    everyMs: config.sweepMs,
  });
  open.defer(() => rotation.close());
  const rollouts = new RolloutKeeper({
    database,
    connections,
    owners,
    references,
    runs,
    logger,
    leaseMs,
    everyMs: config.sweepMs,
  });
  open.defer(() => rollouts.close());
  // Before the sweeper, which waits for the runs it began.
  open.defer(() => runs.close());
  const changes = new ChangeFeed(database, logger);
  await deliverAuditEvents(boss, identity);

  if (deps.metrics) {
    registerFleetMetrics(deps.metrics, database);
    registerMetadataBackupMetrics(deps.metrics, objects);
    if (config.topTenants > 0) {
      const at = { database, connections, logger };
      const { topTenants: count, serverSampleMs: everyMs } = config;
      const top = new TopTenants({ context: at, metrics: deps.metrics, count, everyMs });
      open.defer(() => top.close());
    }
  }

  const { defaultRegion, replacedKeepMs, backupPolicy } = config;
  const backups = { database, runs, objects, owners, leaseMs, backupPolicy, logger };
  await scheduleBackups(boss, backups);

  const context: ProvisionerContext = {
    database,
    boss,
    master,
    connections,
    owners,
    references,
    rollouts,
    runs,
    changes,
    objects,
    trustedJwks: [publicJwkOf(config.servicePrivateJwk), config.serviceKeys['provisioner'] ?? []].flat(),
    leaseMs,
    rotateGraceMs,
    shareMs: config.shareMs,
    replacedKeepMs,
    cleanupGraceMs: config.cleanupGraceMs,
    backupPolicy,
    metadataBackupPolicy: config.metadataBackupPolicy,
    defaultRegion,
    logger,
  };
  const server = await serveRpc({
    service: 'provisioner',
    host: config.host,
    port: config.port,
    connectPort: config.connectPort,
    services: routes(context),
    interceptors: [
      accessInterceptor({
        verifyUser: createAccessTokenVerifier({ jwks: identityKeys(identity) }),
        verifyService: createServiceTokenVerifier({ keys: config.serviceKeys }),
      }),
      postgresErrorInterceptor(),
    ],
    ...deps,
  });
  open.defer(() => server.close());
  // First of all: the endless streams end, so that the server need not wait for them.
  open.defer(() => changes.close());
  return server;
}
