import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createClient, type Client } from '@connectrpc/connect';
import type { DescService } from '@bufbuild/protobuf';
import { createServiceTokenSigner, serviceTokenInterceptor } from '@mad/auth';
import { clientOptions } from '@mad/postgres';
import { MINUTE_MS, SECOND_MS, sleep, uuidv7 } from '@mad/process';
import { ServerService } from '@mad/proto/provisioner';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';
import { KILL_SETTINGS } from '@mad/testing/operation-kills';
import { redisMissing, startRedis, type RedisServer } from '@mad/testing/redis-server';
import pg from 'pg';
import { SERVER_NAME } from '../apps/local/src/environment.ts';
import { SERVICES, startFleet, type Fleet, type ServiceName } from '../apps/local/test/support/fleet.ts';
import { newOrganization, signIn, type Person } from '../apps/local/test/support/people.ts';
import { registrationOf, startSecondServer, type SecondServer } from '../services/provisioner/test/second-server.ts';

/** The tenant schema of every scenario. */
export const SCHEMA = 'results';
export const METADATA = 'mad_metadata';
const SECOND = 'second';
/** An access token lives ten minutes. */
const TOKEN_MS = 5 * MINUTE_MS;
const RETRY_MS = 25;

/** So that who died is noticed soon; besides that what operators run. */
const SETTINGS: Record<string, string> = {
  ...KILL_SETTINGS,
  PROVISIONER_STOCK_SIZE: '1',
  CATALOG_LEASE_MS: '5000',
  CATALOG_REAP_MS: '500',
  WORKER_HEARTBEAT_MS: '1000',
  RESULTS_EXPORT_PART_ROWS: '1000',
  GATEWAY_ADDRESS_RATE: '0',
};
/** A process is killed, not the machine: what it wrote is the kernel's, whether or not it waited for the disk. */
const POSTGRES = { fsync: 'off' };

/** An organization of a scenario. */
export interface ChaosOrganization {
  orgId: string;
  slug: string;
}

/** Every service in a process of its own, two Postgres servers, and Redis where there is one. */
export interface ChaosSystem {
  fleet: Fleet;
  redis: RedisServer | undefined;
  /** The server beside the one that also has the metadata. */
  second: SecondServer;
  /** A client of a service on its own port, as another service or the worker. Closed with the system. */
  asService<S extends DescService>(
    service: S,
    to: ServiceName,
    by: 'identity' | 'catalog' | 'results' | 'worker',
  ): Client<S>;
  /** The platform's administrator, signed in. */
  platform(): Promise<Person>;
  /** The administrator of an organization made by `newOrganization`, signed in. */
  member(org: ChaosOrganization): Promise<Person>;
  /** Makes an organization with its database, ready to use. */
  newOrganization(): Promise<ChaosOrganization>;
  /** One query of the superuser in the metadata database, on a connection of its own; repeated until it is answered. */
  metadata<R extends pg.QueryResultRow>(sql: string, ...values: unknown[]): Promise<R[]>;
  /** The same in a tenant's database, wherever it is now. */
  inside<R extends pg.QueryResultRow>(orgId: string, sql: string, ...values: unknown[]): Promise<R[]>;
  /** The name of the server a tenant is on. */
  serverOf(orgId: string): Promise<string>;
  /** The superuser's URL of a database on a server. */
  databaseUrl(server: string, database: string): string;
  /** SIGKILL of the Postgres server of that name; it is started again on its data. */
  crashServer(server: string): Promise<void>;
  /** SIGKILL, and a new process in its place. */
  restart(service: ServiceName): Promise<void>;
  close(): Promise<void>;
}

/** What Postgres says of a statement that is wrong in itself: repeating it would hide it. */
const isWrong = (error: unknown): boolean => String((error as { code?: unknown }).code).startsWith('42');

/** Repeats until it succeeds, for a minute at most. */
export async function insist<T>(call: () => Promise<T>): Promise<T> {
  for (const until = performance.now() + MINUTE_MS; ;) {
    try {
      return await call();
    } catch (error) {
      if (performance.now() >= until || isWrong(error)) throw error;
      await sleep(RETRY_MS);
    }
  }
}

async function queryOnce<R extends pg.QueryResultRow>(url: string, sql: string, values: unknown[]): Promise<R[]> {
  const client = new pg.Client({ ...clientOptions(url), connectionTimeoutMillis: 5 * SECOND_MS });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return (await client.query<R>(sql, values)).rows;
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** Starts the system; `progress` is told what happens. */
export async function startChaosSystem(progress: (text: string) => void): Promise<ChaosSystem> {
  const missing = redisMissing();
  progress(`starting every service, two Postgres servers${missing === undefined ? ', Redis' : `; ${missing}`}`);
  const redis = missing === undefined ? await startRedis() : undefined;
  const logFolder = fileURLToPath(new URL('results/', import.meta.url));
  for (const service of SERVICES) await rm(join(logFolder, `${service}.log`), { force: true });
  const settings = { ...SETTINGS, ...(redis && { REDIS_URL: redis.url }) };
  const fleet = await startFleet(settings, { postgresSettings: POSTGRES, logFolder });
  const second = await startSecondServer({ schema: SCHEMA }, SECOND, POSTGRES);
  const { ground } = fleet;
  const transports: GrpcTransport[] = [];
  const people = new Map<string, { person: Person; until: number }>();

  const signedIn = async (key: string, login: Parameters<typeof signIn>[1]): Promise<Person> => {
    const known = people.get(key);
    if (known !== undefined && performance.now() < known.until) return known.person;
    const person = await insist(() => signIn(fleet.url, login));
    people.set(key, { person, until: performance.now() + TOKEN_MS });
    return person;
  };
  const self: ChaosSystem = {
    fleet,
    redis,
    second,
    asService(service, to, by) {
      const { privateJwk } = ground.secrets.signingKeys[by];
      const { ports } = ground;
      const port = to === 'gateway' || to === 'worker' ? 0 : ports[to].port;
      const interceptors = [serviceTokenInterceptor(createServiceTokenSigner({ service: by, privateJwk }))];
      const transport = grpcTransport(`127.0.0.1:${port}`, { interceptors });
      transports.push(transport);
      return createClient(service, transport);
    },
    platform: () => signedIn('', ground.secrets.administrator),
    member: ({ slug }) =>
      signedIn(slug, { email: `admin@${slug}.example`, password: `password of ${slug}`, organization: slug }),
    async newOrganization() {
      const slug = `chaos-${uuidv7().slice(-12)}`;
      const { organization } = await newOrganization(fleet.url, await self.platform(), slug);
      return { orgId: organization.orgId, slug };
    },
    metadata: (sql, ...values) => insist(() => queryOnce(fleet.databaseUrl(METADATA), sql, values)),
    inside: (orgId, sql, ...values) =>
      insist(async () => {
        const [tenant] = await self.metadata<{ server: string; database: string }>(
          `SELECT s.name AS server, t.database_name AS database FROM provisioner.tenants t
           JOIN provisioner.database_servers s USING (server_id) WHERE t.org_id = $1`,
          orgId,
        );
        return queryOnce(self.databaseUrl(tenant!.server, tenant!.database), sql, values);
      }),
    async serverOf(orgId) {
      const [tenant] = await self.metadata<{ name: string }>(
        'SELECT s.name FROM provisioner.tenants t JOIN provisioner.database_servers s USING (server_id) WHERE t.org_id = $1',
        orgId,
      );
      return tenant!.name;
    },
    databaseUrl: (server, database) =>
      server === SERVER_NAME ? fleet.databaseUrl(database) : second.adminUrlTo(database),
    crashServer: (server) => (server === SERVER_NAME ? fleet.crashPostgres() : second.crash()),
    async restart(service) {
      await fleet.kill(service);
      await fleet.start(service);
    },
    async close() {
      for (const transport of transports) transport.close();
      await fleet.close();
      await second.close();
      await redis?.stop();
    },
  };
  try {
    const platform = await self.platform();
    await platform.client(ServerService).registerServer(registrationOf(second, SERVER_NAME));
    return self;
  } catch (error) {
    await self.close();
    throw error;
  }
}
