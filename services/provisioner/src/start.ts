import { createClient } from '@connectrpc/connect';
import {
  accessInterceptor,
  createAccessTokenVerifier,
  createServiceTokenSigner,
  createServiceTokenVerifier,
  serviceTokenInterceptor,
} from '@mad/auth';
import { openBoss, openDatabase, postgresErrorInterceptor } from '@mad/postgres';
import type { Logger, Metrics } from '@mad/process';
import { SessionService } from '@mad/proto/identity';
import { grpcTransport, serveRpc, type RpcServer } from '@mad/rpc';
import type { ProvisionerConfig } from './config.ts';
import type { ProvisionerContext } from './context.ts';
import { provisionerEntities } from './db/schema.ts';
import { ChangeFeed } from './provisioning/change-feed.ts';
import { Runs } from './provisioning/runs.ts';
import { Sweeper } from './provisioning/sweeper.ts';
import { deliverAuditEvents, QUEUES } from './queue.ts';
import { routes } from './routes.ts';
import { upsertServer } from './servers/registration.ts';
import { SchemaOwners } from './servers/schema-owners.ts';
import { ServerConnections } from './servers/server-connections.ts';

/**
 * Starts provisioner: registers the configured servers, goes on with what an earlier process left undone, serves.
 * Rejects when the metadata database is missing, not migrated, or would let the logins past row-level security.
 */
export async function startProvisioner(
  config: ProvisionerConfig,
  { logger, metrics }: { logger: Logger; metrics?: Metrics },
): Promise<RpcServer> {
  const onClose: (() => Promise<void> | void)[] = [];
  const close = async (): Promise<void> => {
    for (const step of onClose.splice(0).toReversed()) await step();
  };
  try {
    const server = await compose(config, logger, metrics, onClose);
    return { port: server.port, connectPort: server.connectPort, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function compose(
  config: ProvisionerConfig,
  logger: Logger,
  metrics: Metrics | undefined,
  onClose: (() => Promise<void> | void)[],
): Promise<RpcServer> {
  const { masterKeys: master, stepLeaseMs: leaseMs } = config;
  const sign = createServiceTokenSigner({ service: 'provisioner', privateJwk: config.servicePrivateJwk });
  const outward = [serviceTokenInterceptor(sign)];

  const database = await openDatabase({
    url: config.databaseUrl,
    systemUrl: config.systemUrl,
    schema: 'provisioner',
    entities: provisionerEntities,
    poolSize: config.poolSize,
    systemPoolSize: config.systemPoolSize,
    applicationName: 'mad-provisioner',
    statementTimeoutMs: config.statementTimeoutMs,
    logger,
  });
  onClose.push(() => database.close());
  await database.asSystem(async (tx) => {
    for (const server of config.servers) await upsertServer(tx, master, server);
  });
  const boss = await openBoss({ url: config.databaseUrl, schema: 'provisioner_boss', logger, queues: QUEUES });
  onClose.push(() => boss.close());
  const identity = grpcTransport(config.identityAddress, { interceptors: outward });
  onClose.push(() => identity.close());

  const connections = new ServerConnections(master, logger);
  onClose.push(() => connections.close());
  const owners = new SchemaOwners(config.tenantSchemas, outward);
  onClose.push(() => owners.close());
  const runs = new Runs({ database, boss, master, connections, owners, logger, leaseMs });
  const sweep = { database, connections, runs, logger, graceMs: config.cleanupGraceMs, everyMs: config.sweepMs };
  const sweeper = new Sweeper(sweep);
  onClose.push(() => sweeper.close());
  // Before the sweeper, which waits for the runs it began.
  onClose.push(() => runs.close());
  const changes = new ChangeFeed(database, logger);
  await deliverAuditEvents(boss, identity);

  const { defaultRegion } = config;
  const context: ProvisionerContext = {
    database,
    boss,
    master,
    connections,
    owners,
    runs,
    changes,
    leaseMs,
    defaultRegion,
    logger,
  };
  const sessions = createClient(SessionService, identity);
  const server = await serveRpc({
    service: 'provisioner',
    host: config.host,
    port: config.port,
    connectPort: config.connectPort,
    services: routes(context),
    interceptors: [
      accessInterceptor({
        verifyUser: createAccessTokenVerifier({
          jwks: async () => ({ keys: keysOf(await sessions.getJsonWebKeySet({})) }),
        }),
        verifyService: createServiceTokenVerifier({ keys: config.serviceKeys }),
      }),
      postgresErrorInterceptor(),
    ],
    logger,
    metrics,
  });
  onClose.push(() => server.close());
  // First of all: the endless streams end, so that the server need not wait for them.
  onClose.push(() => changes.close());
  return server;
}

type JsonWebKeySet = Awaited<ReturnType<ReturnType<typeof createClient<typeof SessionService>>['getJsonWebKeySet']>>;

function keysOf({ keys }: JsonWebKeySet) {
  return keys.map(({ kid, kty, crv, alg, use, x, y }) => ({ kid, kty, crv, alg, use, x, y }));
}
