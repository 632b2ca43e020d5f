import { hostname } from 'node:os';
import { createClient } from '@connectrpc/connect';
import {
  accessInterceptor,
  createAccessTokenVerifier,
  createServiceTokenVerifier,
  identityKeys,
  serviceTransports,
} from '@mad/auth';
import { openPubSub } from '@mad/cache';
import { objectKeys, openObjectStore, sealedStore } from '@mad/object-store';
import { postgresErrorInterceptor } from '@mad/postgres';
import { SECOND_MS, type ServiceDeps } from '@mad/process';
import { JobService, QueueService } from '@mad/proto/catalog';
import { ExecutionService } from '@mad/proto/results';
import { serveRpc } from '@mad/rpc';
import { openTenants, type TenantsStatus } from '@mad/tenancy';
import type { ResultsConfig } from './config.ts';
import type { Context } from './context.ts';
import { outdatedVersions, resultsEntities, SCHEMA } from './db/schema.ts';
import { ExportRunner } from './exports/runner.ts';
import { ObjectSweeper } from './objects/sweep.ts';
import { RetentionKeeper } from './retention-keeper.ts';
import { routes } from './routes.ts';
import { JobFeed } from './runs/job-feed.ts';
import { JobWatches } from './runs/job-watch.ts';
import { leaseVerifier } from './runs/lease.ts';
import { Waker } from './runs/waker.ts';

/** Results, serving. */
export interface RunningResults {
  /** gRPC. */
  port: number;
  /** Connect over HTTP/1.1. */
  connectPort: number;
  /** Open tenants and connections. */
  status(): TenantsStatus;
  close(): Promise<void>;
}

/** As soon as a silent change log is noticed (5 s), a connection that died without a word is replaced. */
const ROUTES_KEEPALIVE = { everyMs: 2 * SECOND_MS, timeoutMs: 3 * SECOND_MS };

/** Starts results. Connects to no tenant before it is used, and to no neighbour before it is needed. */
export async function startResults(config: ResultsConfig, deps: ServiceDeps): Promise<RunningResults> {
  const { logger, metrics } = deps;
  /** What is open, to be closed the last first. */
  const open = new AsyncDisposableStack();
  try {
    const to = serviceTransports({ service: 'results', privateJwk: config.servicePrivateJwk });
    const transportTo = (address: string, options?: Parameters<typeof to>[1]) => {
      const transport = to(address, options);
      open.defer(() => transport.close());
      return transport;
    };
    const catalog = transportTo(config.catalogAddress);
    const identity = transportTo(config.identityAddress);
    const provisioner = transportTo(config.provisionerAddress, { keepalive: ROUTES_KEEPALIVE });
    const tenants = await openTenants({
      schema: SCHEMA,
      entities: resultsEntities,
      outdated: outdatedVersions,
      routes: provisioner,
      node: config.node,
      place: config.port === 0 ? undefined : `${hostname()}:${config.port}`,
      poolMax: config.tenantPoolMax,
      maxInFlight: config.tenantInFlight,
      turns: config.serverTurns,
      maxOpen: config.tenantsOpen,
      idleMs: config.tenantIdleMs,
      statementTimeoutMs: config.statementTimeoutMs,
      logger,
      metrics,
    });
    open.defer(() => tenants.close());
    const pubSub = await openPubSub({ url: config.redisUrl, logger });
    open.defer(() => pubSub.close());
    const feed = await JobFeed.open(pubSub);
    open.defer(() => feed.close());

    const objects = sealedStore(openObjectStore(config.objectStoreUrl), objectKeys(provisioner));
    const sweeper = new ObjectSweeper(tenants, objects, logger);
    open.defer(() => sweeper.close());
    const exports = new ExportRunner({ tenants, objects, sweeper }, logger);
    open.defer(() => exports.close());

    const queue = createClient(QueueService, catalog);
    const waker = new Waker({ tenants, queue, feed }, logger);
    open.defer(() => waker.close());

    const context: Context = {
      tenants,
      catalog: { jobs: createClient(JobService, catalog), queue },
      verifyLease: leaseVerifier(config.serviceKeys['catalog']!),
      feed,
      watches: new JobWatches(tenants, feed),
      objects,
      sweeper,
      waker,
      exports,
      exportPartRows: config.exportPartRows,
      retentionSliceRows: config.retentionSliceRows,
      cacheTtlDays: config.cacheTtlDays,
      ...deps,
    };
    const verifyUser = createAccessTokenVerifier({ jwks: identityKeys(identity) });
    const verifyService = createServiceTokenVerifier({ keys: config.serviceKeys });
    const server = await serveRpc({
      service: 'results',
      host: config.host,
      port: config.port,
      connectPort: config.connectPort,
      services: routes(context),
      interceptors: [accessInterceptor({ verifyUser, verifyService }), postgresErrorInterceptor()],
      // Tens of thousands of poses a message: the rules of its columns are in domain/result-batch.ts.
      validatedByHand: [ExecutionService.method.appendResults],
      ...deps,
    });
    open.defer(() => server.close());
    if (config.retentionEveryHours > 0) {
      const keeper = new RetentionKeeper({
        tenants,
        schema: SCHEMA,
        routes: provisioner,
        everyHours: config.retentionEveryHours,
        graceHours: config.retentionGraceHours,
        sliceRows: config.retentionSliceRows,
        logger,
      });
      open.defer(() => keeper.close());
    }
    return {
      port: server.port,
      connectPort: server.connectPort,
      status: () => tenants.status(),
      close: () => open.disposeAsync(),
    };
  } catch (error) {
    await open.disposeAsync();
    throw error;
  }
}
