import { randomBytes, randomUUID } from 'node:crypto';
import { ConnectError, createClient, type Client, type Interceptor } from '@connectrpc/connect';
import { accessInterceptor } from '@mad/auth';
import type { Database } from '@mad/postgres';
import { createLogger } from '@mad/process';
import {
  AuditService,
  MemberService,
  OrganizationService,
  OrganizationStatus,
  PlatformService,
  RoleService,
  SessionService,
  TokenService,
  type Organization,
} from '@mad/proto/identity';
import { OperationState, TenantService, TenantState } from '@mad/proto/provisioner';
import { PrewarmService } from '@mad/proto/results';
import { OrganizationErasureService } from '@mad/proto/tenancy';
import { bind, grpcTransport, serveRpc, type GrpcTransport } from '@mad/rpc';
import {
  metadataDatabase,
  testAccessKey,
  testServiceKeys,
  testServiceVerifier,
  testVerifier,
  type TestDatabase,
} from '@mad/testing';
import pg from 'pg';
import {
  ensureFirstAdministrator,
  identityMigrations,
  openIdentityDatabase,
  startIdentity,
  type IdentityConfig,
  type RunningIdentity,
} from '../src/index.ts';
import { masterKey } from '../src/secrets/master-key.ts';

/** A provisioner and a results that answer what a test says; they admit only what the real ones would. */
export interface Neighbour {
  address: string;
  /** What EnsureTenant answers. */
  state: TenantState;
  /** Where an erasure stands that it is asked for. */
  erasing: OperationState;
  /** `ensure <org>`, `suspend <org>`, `freeze <org>`, `resume <org>`, `erase <org> <erasure>`, in order. */
  calls: string[];
  /** Organizations that were to be opened ahead of time, in order. */
  warmed: string[];
  /** While true, results answers nothing when it is asked to. */
  hangs: boolean;
  close(): Promise<void>;
}

const logger = createLogger('test', { level: 'silent' });

async function startNeighbour(): Promise<Neighbour> {
  const calls: string[] = [];
  const warmed: string[] = [];
  const services = [
    bind(TenantService, {
      async ensureTenant({ orgId, schema }) {
        calls.push(`ensure ${schema} ${orgId}`);
        return { tenant: { orgId, schema, state: neighbour.state } };
      },
      async suspendTenants({ orgId }) {
        calls.push(`suspend ${orgId}`);
        return {};
      },
      async freezeTenants({ orgId }) {
        calls.push(`freeze ${orgId}`);
        return {};
      },
      async resumeTenants({ orgId }) {
        calls.push(`resume ${orgId}`);
        return {};
      },
      async eraseTenants({ orgId, erasureId, slug, requestedBy }) {
        calls.push(`erase ${orgId} ${erasureId} ${slug} ${requestedBy}`);
        return { operation: { kind: 'erase', orgId, state: neighbour.erasing } };
      },
    }),
    bind(PrewarmService, {
      async prewarmTenant({ orgId }, { signal }) {
        warmed.push(orgId);
        if (neighbour.hangs) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
        return { open: true };
      },
    }),
  ];
  const access = accessInterceptor({
    verifyUser: testVerifier(),
    verifyService: await testServiceVerifier(['identity']),
  });
  const shared = { service: 'provisioner', host: '127.0.0.1', port: 0, logger };
  const server = await serveRpc({ ...shared, services, interceptors: [access] });
  const neighbour: Neighbour = {
    address: `127.0.0.1:${server.port}`,
    state: TenantState.READY,
    erasing: OperationState.RUNNING,
    calls,
    warmed,
    hangs: false,
    close: () => server.close(),
  };
  return neighbour;
}

export const ADMINISTRATOR = { email: 'root@mad.test', password: 'correct horse battery' };
export const PASSWORD = 'staple battery horse';

/** Clients of every service of identity, with one bearer token or none. */
export interface Clients {
  audit: Client<typeof AuditService>;
  erasure: Client<typeof OrganizationErasureService>;
  members: Client<typeof MemberService>;
  organizations: Client<typeof OrganizationService>;
  platform: Client<typeof PlatformService>;
  roles: Client<typeof RoleService>;
  sessions: Client<typeof SessionService>;
  tokens: Client<typeof TokenService>;
}

/** An organization with one administrator who has signed in. */
export interface TestOrganization extends Organization {
  admin: Clients;
  adminId: string;
  adminEmail: string;
  adminToken: string;
}

/** Identity on a database of its own, with the neighbour it calls. */
export interface TestIdentity {
  identity: RunningIdentity;
  config: IdentityConfig;
  db: TestDatabase;
  /** Sees past row-level security. */
  superuser: pg.Client;
  database: Database;
  neighbour: Neighbour;
  as(token?: string): Clients;
  /** The first administrator's. */
  platform: Clients;
  platformToken: string;
  organization(slug: string): Promise<TestOrganization>;
  close(): Promise<void>;
}

/** The access key of @mad/testing becomes identity's own, so that its good and bad tokens are judged by identity. */
async function useTestAccessKey(superuser: pg.Client, master: Uint8Array): Promise<void> {
  const { kid, publicJwk, privateJwk } = await testAccessKey();
  await superuser.query(
    `INSERT INTO identity.signing_keys (kid, alg, public_key, private_key, state, not_before)
     VALUES ($1, 'ES256', $2, $3, 'active', now() - interval '1 s')`,
    [kid, JSON.stringify(publicJwk), masterKey(master).seal(Buffer.from(JSON.stringify(privateJwk)), kid)],
  );
}

function clients(transport: GrpcTransport): Clients {
  return {
    audit: createClient(AuditService, transport),
    erasure: createClient(OrganizationErasureService, transport),
    members: createClient(MemberService, transport),
    organizations: createClient(OrganizationService, transport),
    platform: createClient(PlatformService, transport),
    roles: createClient(RoleService, transport),
    sessions: createClient(SessionService, transport),
    tokens: createClient(TokenService, transport),
  };
}

/** Asks until the answer is no longer undefined; fails after ten seconds. */
export async function eventually<T>(what: string, ask: () => Promise<T | undefined>): Promise<T> {
  const end = Date.now() + 10_000;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > end) throw new Error(`did not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The error a call ends in; a call that succeeds fails the test. */
export async function failure(call: Promise<unknown>): Promise<ConnectError> {
  try {
    await call;
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error('the call succeeded');
}

/** Starts identity for one test file. */
export async function runIdentity(overrides: Partial<IdentityConfig> = {}): Promise<TestIdentity> {
  const db = await metadataDatabase({ services: [{ schema: 'identity', migrations: identityMigrations }] });
  const superuser = new pg.Client({ connectionString: db.adminUrl });
  await superuser.connect();
  const keys = await testServiceKeys(['identity', 'catalog', 'results', 'provisioner', 'gateway']);
  const neighbour = await startNeighbour();
  const url = db.pooledUrl('mad_identity');
  const systemUrl = db.pooledUrl('mad_identity_system');
  const config: IdentityConfig = {
    host: '127.0.0.1',
    port: 0,
    database: { url, systemUrl, poolSize: 5, systemPoolSize: 2, statementTimeoutMs: 60_000, logSql: false },
    bossUrl: db.url('mad_identity'),
    masterKey: randomBytes(32),
    servicePrivateJwk: keys.private.identity,
    serviceKeys: keys.public,
    provisionerAddress: neighbour.address,
    resultsAddress: neighbour.address,
    prewarm: true,
    provisioning: 'on_first_write',
    tenantSchemas: ['results'],
    defaultRegion: 'local',
    ...overrides,
  };
  await useTestAccessKey(superuser, config.masterKey);
  const database = await openIdentityDatabase({ url, systemUrl });
  await ensureFirstAdministrator(database, ADMINISTRATOR);
  const identity = await startIdentity(config, { logger });

  const transports: GrpcTransport[] = [];
  const as = (token?: string): Clients => {
    const interceptor: Interceptor = (next) => (request) => {
      if (token !== undefined) request.header.set('authorization', `Bearer ${token}`);
      return next(request);
    };
    const transport = grpcTransport(`127.0.0.1:${identity.port}`, { interceptors: [interceptor] });
    transports.push(transport);
    return clients(transport);
  };
  const signIn = async (email: string, password: string, organization = '') =>
    (await as().sessions.login({ email, password, organization })).tokens!.accessToken;
  const platformToken = await signIn(ADMINISTRATOR.email, ADMINISTRATOR.password);
  const platform = as(platformToken);

  return {
    identity,
    config,
    db,
    superuser,
    database,
    neighbour,
    as,
    platform,
    platformToken,
    async organization(slug) {
      const requestId = randomUUID();
      const created = await platform.organizations.createOrganization({ requestId, name: `The ${slug}`, slug });
      const { orgId } = created.organization!;
      const adminEmail = `admin@${slug}.test`;
      const first = { orgId, requestId: randomUUID(), email: adminEmail, displayName: 'Ada', password: PASSWORD };
      const { member } = await platform.members.addFirstMember(first);
      const adminToken = await signIn(adminEmail, PASSWORD, slug);
      const admin = as(adminToken);
      return { ...created.organization!, admin, adminId: member!.user!.userId, adminEmail, adminToken };
    },
    async close() {
      for (const transport of transports) transport.close();
      await identity.close();
      await neighbour.close();
      await database.close();
      await superuser.end();
      await db.drop();
    },
  };
}

export { OperationState, OrganizationStatus, TenantState };
