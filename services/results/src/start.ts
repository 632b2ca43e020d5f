import { createClient } from '@connectrpc/connect';
import {
  accessInterceptor,
  createAccessTokenVerifier,
  createServiceTokenVerifier,
  identityKeys,
  serviceTransports,
} from '@mad/auth';
import { postgresErrorInterceptor } from '@mad/postgres';
import type { Logger, Metrics } from '@mad/process';
import { JobService, QueueService } from '@mad/proto/catalog';
import { ExecutionService } from '@mad/proto/results';
import { serveRpc } from '@mad/rpc';
import { openTenants, type TenantsStatus } from '@mad/tenancy';
import type { ResultsConfig } from './config.ts';
import type { Context } from './context.ts';
import { resultsEntities, SCHEMA } from './db/schema.ts';
import { routes } from './routes.ts';
import { JobFeed } from './runs/job-feed.ts';
import { leaseVerifier } from './runs/lease.ts';

/** What results is given by the process it runs in. */
export interface ResultsDeps {
  logger: Logger;
  metrics?: Metrics;
}

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

/** Starts results. Connects to no tenant before it is used, and to no neighbour before it is needed. */
export async function startResults(config: ResultsConfig, deps: ResultsDeps): Promise<RunningResults> {
  const { logger, metrics } = deps;
  /** What is open, to be closed the last first. */
  const open = new AsyncDisposableStack();
  try {
    const to = serviceTransports({ service: 'results', privateJwk: config.servicePrivateJwk });
    const transportTo = (address: string) => {
      const transport = to(address);
      open.defer(() => transport.close());
      return transport;
    };
    const catalog = transportTo(config.catalogAddress);
    const identity = transportTo(config.identityAddress);
    const tenants = await openTenants({
      schema: SCHEMA,
      entities: resultsEntities,
      routes: transportTo(config.provisionerAddress),
      node: config.node,
      poolMax: config.tenantPoolMax,
      idleMs: config.tenantIdleMs,
      statementTimeoutMs: config.statementTimeoutMs,
      logger,
      metrics,
    });
    open.defer(() => tenants.close());

    const context: Context = {
      tenants,
      catalog: { jobs: createClient(JobService, catalog), queue: createClient(QueueService, catalog) },
      verifyLease: leaseVerifier(config.serviceKeys['catalog']!),
      feed: new JobFeed(),
      logger,
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
      logger,
      metrics,
    });
    open.defer(() => server.close());
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
