import { createClient } from '@connectrpc/connect';
import { accessInterceptor, createAccessTokenVerifier, createServiceTokenVerifier, serviceTransports } from '@mad/auth';
import { openBoss, postgresErrorInterceptor, type Boss, type Database } from '@mad/postgres';
import { SECOND_MS, type Logger, type ServiceDeps } from '@mad/process';
import { TenantService } from '@mad/proto/provisioner';
import { PrewarmService } from '@mad/proto/results';
import { serveRpc, type RpcServer } from '@mad/rpc';
import type { IdentityConfig } from './config.ts';
import type { IdentityContext } from './context.ts';
import { CONSTRAINT_MESSAGES, openIdentityDatabase } from './database.ts';
import { signingKeys } from './keys/signing-keys.ts';
import { readPermissionCatalogue } from './permission-catalogue.ts';
import { ensureTenant, type TenantWork } from './queue/ensure-tenant.ts';
import { eraseTenants } from './queue/erase-tenants.ts';
import { keepHouse } from './queue/housekeeping.ts';
import {
  ENSURE_TENANT,
  ERASE_ORGANIZATION,
  HOUSEKEEPING,
  identityQueues,
  SET_TENANT_STATE,
  type ErasureMessage,
  type OrganizationMessage,
} from './queue/queues.ts';
import { setTenantState } from './queue/set-tenant-state.ts';
import { routes } from './routes.ts';
import { masterKey } from './secrets/master-key.ts';
import { passwordChecker } from './secrets/passwords.ts';
import { seedRoles } from './seed.ts';
import { Prewarming } from './sessions/prewarm.ts';

const EVERY_HOUR = '7 * * * *';
/** A new organization is waited for by a person: its message is looked for as often as pg-boss allows. */
const POLL_MS = SECOND_MS / 2;
/** Organizations made at the same time are provisioned side by side. */
const CONCURRENCY = 4;

/** Identity, serving. */
export interface RunningIdentity {
  /** gRPC. */
  port: number;
  /** Connect over HTTP/1.1. */
  connectPort: number;
  close(): Promise<void>;
}

async function workQueues(boss: Boss, work: TenantWork, context: IdentityContext): Promise<void> {
  const options = { concurrency: CONCURRENCY, pollMs: POLL_MS };
  await boss.work<OrganizationMessage>(
    ENSURE_TENANT,
    ({ data, signal }) => ensureTenant(work, data.org_id, signal),
    options,
  );
  await boss.work<OrganizationMessage>(
    SET_TENANT_STATE,
    ({ data, signal }) => setTenantState(work, data.org_id, signal),
    options,
  );
  await boss.work<ErasureMessage>(ERASE_ORGANIZATION, ({ data, signal }) => eraseTenants(work, data, signal), options);
  await boss.work(HOUSEKEEPING, () => keepHouse(context));
  await boss.schedule(HOUSEKEEPING, EVERY_HOUR);
}

function serve(config: IdentityConfig, context: IdentityContext, deps: ServiceDeps): Promise<RpcServer> {
  const verifyUser = createAccessTokenVerifier({ jwks: async () => ({ keys: await context.keys.publicKeys() }) });
  const verifyService = createServiceTokenVerifier({ keys: config.serviceKeys });
  return serveRpc({
    service: 'identity',
    host: config.host,
    port: config.port,
    connectPort: config.connectPort,
    services: routes(context),
    interceptors: [accessInterceptor({ verifyUser, verifyService }), postgresErrorInterceptor(CONSTRAINT_MESSAGES)],
    ...deps,
  });
}

async function makeContext(
  config: IdentityConfig,
  database: Database,
  boss: Boss,
  prewarming: Prewarming,
  logger: Logger,
): Promise<IdentityContext> {
  const master = masterKey(config.masterKey);
  return {
    database,
    boss,
    keys: signingKeys(database, master),
    master,
    passwords: await passwordChecker(),
    permissions: readPermissionCatalogue(),
    provisioning: config.provisioning,
    defaultRegion: config.defaultRegion,
    prewarm: (orgId) => {
      if (config.prewarm) prewarming.warm(orgId);
    },
    logger,
  };
}

/** Starts identity: checks the database, makes a signing key when there is none, works its queues, serves. */
export async function startIdentity(config: IdentityConfig, deps: ServiceDeps): Promise<RunningIdentity> {
  const { logger, metrics } = deps;
  /** What is open, to be closed the last first. */
  const open = new AsyncDisposableStack();
  try {
    const database = await openIdentityDatabase(config.database, logger, metrics);
    open.defer(() => database.close());
    const to = serviceTransports({ service: 'identity', privateJwk: config.servicePrivateJwk });
    const transport = to(config.provisionerAddress);
    // Before the queue: its handlers finish before what they talk to is closed.
    open.defer(() => transport.close());
    const boss = await openBoss({ url: config.bossUrl, schema: 'identity_boss', queues: identityQueues, ...deps });
    open.defer(() => boss.close());
    const results = to(config.resultsAddress);
    open.defer(() => results.close());
    const prewarming = new Prewarming(createClient(PrewarmService, results), logger);
    open.defer(() => prewarming.close());
    const context = await makeContext(config, database, boss, prewarming, logger);
    await database.asSystem((tx) => seedRoles(tx, context.permissions));

    const tenants = createClient(TenantService, transport);
    await keepHouse(context);
    await workQueues(boss, { database, tenants, tenantSchemas: config.tenantSchemas }, context);

    const server = await serve(config, context, deps);
    open.defer(() => server.close());
    return { port: server.port, connectPort: server.connectPort, close: () => open.disposeAsync() };
  } catch (error) {
    await open.disposeAsync();
    throw error;
  }
}
