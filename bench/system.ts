import { createClient, type Client, type Interceptor } from '@connectrpc/connect';
import { createServiceTokenSigner, serviceTokenInterceptor } from '@mad/auth';
import { clientOptions } from '@mad/postgres';
import { SECOND_MS, sleep, uuidv7 } from '@mad/process';
import { OrganizationService, SessionService } from '@mad/proto/identity';
import { RouteService, TenantService, TenantState, type Route } from '@mad/proto/provisioner';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';
import pg from 'pg';
import type { Environment, PostgresPlace } from '../apps/local/src/environment.ts';
import type { Secrets } from '../apps/local/src/secrets.ts';
import { startProgram } from './child.ts';

type ServiceName = 'identity' | 'catalog' | 'provisioner' | 'results';

/** The tenant schema of every row. */
export const SCHEMA = 'results';
const READY_TIMEOUT_MS = 60 * SECOND_MS;
const POLL_MS = 50;

/** What `programs/system.ts` says when it serves. */
export interface SystemReady {
  adminUrl: string;
  place: PostgresPlace;
  /** Postgres's. */
  version: string;
  secrets: Secrets;
  /** Of every service: for another process of one. */
  environment: Environment;
  /** gRPC. */
  ports: Record<ServiceName, number>;
}

/** A running system as its clients see it. */
export interface BenchSystem extends SystemReady {
  /** A connection to `to` as the service, or the worker, `by`. */
  transport(to: ServiceName, by: ServiceName | 'worker'): GrpcTransport;
  /** The superuser in a database. The caller ends it. */
  admin(database: string): Promise<pg.Client>;
  /** Adds an organization to identity's table, without a database and without people. Returns its id. */
  addOrganization(): Promise<string>;
  /** Adds an organization and has its database made. Returns its route. */
  newTenant(): Promise<Route>;
  /** Makes a real organization; returns its id and a transport to `to` with a token of somebody who may do all there. */
  newOrganization(to: ServiceName): Promise<{ orgId: string; transport: GrpcTransport }>;
  /** A new token of somebody who may do all in an organization: one lives ten minutes. */
  memberToken(orgId: string): Promise<string>;
  /** A transport to `to` with the token of the platform's administrator. */
  platform(to: ServiceName): Promise<GrpcTransport>;
  close(): Promise<void>;
}

function bearer(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set('authorization', `Bearer ${token}`);
    return next(request);
  };
}

/** Settings that win over the bench's: of the services, by the names of their environment, and of the Postgres server. */
export interface SystemSettings {
  services?: Readonly<Record<string, string>>;
  postgres?: Readonly<Record<string, string>>;
}

/** Starts the services and their Postgres server in a process of their own. */
export async function startSystem(settings: SystemSettings = {}): Promise<BenchSystem> {
  const program = await startProgram<SystemReady>('system', [JSON.stringify(settings)]);
  const { ready } = program;
  const transports: GrpcTransport[] = [];
  const open = (to: ServiceName, interceptors: Interceptor[]): GrpcTransport => {
    const transport = grpcTransport(`127.0.0.1:${ready.ports[to]}`, { interceptors });
    transports.push(transport);
    return transport;
  };
  const transport = (to: ServiceName, by: ServiceName | 'worker'): GrpcTransport => {
    const { privateJwk } = ready.secrets.signingKeys[by];
    return open(to, [serviceTokenInterceptor(createServiceTokenSigner({ service: by, privateJwk }))]);
  };
  const admin = async (database: string): Promise<pg.Client> => {
    const url = new URL(ready.adminUrl);
    url.pathname = `/${database}`;
    const client = new pg.Client(clientOptions(url.href));
    // A row that crashed leaves its connection to the server's end, which must not end this process too.
    client.on('error', () => undefined);
    await client.connect();
    return client;
  };
  const addOrganization = async (): Promise<string> => {
    const orgId = uuidv7();
    const client = await admin(ready.place.database);
    try {
      // Identity's own RPC would order the database as well, and that is what the rows measure.
      await client.query(
        `INSERT INTO identity.organizations (org_id, name, slug, status, region, quotas)
         VALUES ($1::uuid, $2, $2, 'active', 'local', '{}')`,
        [orgId, `bench-${orgId}`],
      );
    } finally {
      await client.end();
    }
    return orgId;
  };
  const memberToken = async (orgId: string): Promise<string> => {
    const login = await createClient(SessionService, open('identity', [])).login(ready.secrets.administrator);
    const asAdministrator = open('identity', [bearer(login.tokens!.accessToken)]);
    const act = { orgId, reason: 'bench' };
    return (await createClient(SessionService, asAdministrator).actOnOrganization(act)).tokens!.accessToken;
  };
  return {
    ...ready,
    transport,
    admin,
    addOrganization,
    async newTenant() {
      const orgId = await addOrganization();
      await ensureTenant(createClient(TenantService, transport('provisioner', 'identity')), orgId);
      const routes = createClient(RouteService, transport('provisioner', 'results'));
      return (await routes.getRoute({ orgId, schema: SCHEMA })).route!;
    },
    async newOrganization(to) {
      const sessions = createClient(SessionService, open('identity', []));
      const login = await sessions.login(ready.secrets.administrator);
      const asAdministrator = open('identity', [bearer(login.tokens!.accessToken)]);
      const { organization } = await createClient(OrganizationService, asAdministrator).createOrganization({
        requestId: uuidv7(),
        slug: `bench-${uuidv7().slice(-12)}`,
        name: 'Bench',
      });
      const { orgId } = organization!;
      await untilReady(createClient(TenantService, transport('provisioner', 'identity')), orgId);
      return { orgId, transport: open(to, [bearer(await memberToken(orgId))]) };
    },
    memberToken,
    async platform(to) {
      const sessions = createClient(SessionService, open('identity', []));
      const login = await sessions.login(ready.secrets.administrator);
      return open(to, [bearer(login.tokens!.accessToken)]);
    },
    async close() {
      for (const one of transports) one.close();
      await program.stop();
    },
  };
}

/** Asks for the tenant until the one that is being made already is there. */
async function untilReady(tenants: Client<typeof TenantService>, orgId: string): Promise<void> {
  const deadline = Date.now() + READY_TIMEOUT_MS;
  for (;;) {
    const { tenant } = await tenants.ensureTenant({ orgId, schema: SCHEMA, region: '' });
    if (tenant?.state === TenantState.READY) return;
    if (Date.now() > deadline)
      throw new Error(`the tenant is ${TenantState[tenant?.state ?? 0]}: ${tenant?.lastError}`);
    await sleep(POLL_MS);
  }
}

/** Has the provisioner make a tenant. Throws when it is not ready by then. */
export async function ensureTenant(tenants: Client<typeof TenantService>, orgId: string): Promise<void> {
  const { tenant } = await tenants.ensureTenant({ orgId, schema: SCHEMA, region: '' });
  if (tenant?.state !== TenantState.READY) throw new Error(`the tenant is not ready: ${tenant?.lastError}`);
}
