import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import { createClient, type Client, type ConnectError, type Interceptor } from '@connectrpc/connect';
import { bootstrapTenantServer, clientOptions, type MigrationClass } from '@mad/postgres';
import { createMetrics, type Metrics } from '@mad/process';
import type { AuditEvent } from '@mad/proto/identity';
import {
  BackupService,
  DriftService,
  ErasureService,
  FleetStatisticsService,
  OperationService,
  OperationState,
  RolloutService,
  RouteService,
  ServerService,
  TenantIndexService,
  TenantService,
  type Operation,
} from '@mad/proto/provisioner';
import { grpcTransport, type GrpcTransport, type RpcServer } from '@mad/rpc';
import {
  metadataDatabase,
  platformToken,
  serviceToken,
  testCluster,
  testServiceKeys,
  type TestDatabase,
} from '@mad/testing';
import pg from 'pg';
import { provisionerMigrations, readProvisionerConfig, startProvisioner } from '../src/index.ts';
import { noteMigrations, serveIdentity, serveSchemaOwner, silent, type OwnedRows } from './neighbours.ts';

const SERVICES = ['identity', 'catalog', 'results', 'gateway', 'provisioner'] as const;

const BACKUP_PERMISSIONS = ['create', 'read', 'verify', 'restore', 'delete', 'schedule'].map(
  (verb) => `platform.backups.${verb}`,
);

/** What an operation may take on a busy machine, in milliseconds. */
const END_MS = 110_000;

/** Provisioner with its neighbours, on databases of its own. */
export interface RunningProvisioner {
  schema: string;
  metadata: TestDatabase;
  /** The superuser, in the server's database postgres. */
  admin: pg.Client;
  /** The superuser, in the metadata database. */
  rows: pg.Client;
  environment: Record<string, string>;
  address: string;
  /** Of its Connect port, for who speaks HTTP/1.1. */
  url: string;
  events: AuditEvent[];
  /** What identity and catalog have of organizations, in one. */
  ownedRows: OwnedRows;
  owner: RpcServer;
  tenants(service?: string): Client<typeof TenantService>;
  tenantsAs(token: string): Client<typeof TenantService>;
  routes(service?: string): Client<typeof RouteService>;
  servers(): Client<typeof ServerService>;
  operations(): Client<typeof OperationService>;
  /** The operation when it has ended, however. */
  ended(operation: Operation | undefined): Promise<Operation>;
  statistics(): Client<typeof FleetStatisticsService>;
  backups(): Client<typeof BackupService>;
  drift(): Client<typeof DriftService>;
  rollouts(): Client<typeof RolloutService>;
  indexes(): Client<typeof TenantIndexService>;
  /** A token of the platform's with these permissions. */
  platform(...permissions: string[]): Promise<string>;
  erasures(): Client<typeof ErasureService>;
  /** The folder of the object store. */
  objectsFolder: string;
  /** What its metrics say; only where they were asked for. */
  metricsText(): Promise<string>;
  /** A transport whose calls carry the token. */
  as(token: () => Promise<string>): GrpcTransport;
  /** The transport of a service, e.g. for `openTenants`. */
  transport(service: string): GrpcTransport;
  stop(): Promise<void>;
  start(): Promise<void>;
  /** Databases and roles of this schema on the server. */
  objects(): Promise<{ databases: string[]; roles: string[] }>;
  close(): Promise<void>;
}

/** What `runProvisioner` may be told. */
export interface RunOptions {
  /** The tenant schema, of this test file alone: roles and templates belong to the whole server. */
  schema: string;
  migrations?: MigrationClass[];
  environment?: Record<string, string>;
  /** Do not start provisioner: the test does. */
  idle?: boolean;
  /** Measure what it does. */
  metrics?: boolean;
}

/**
 * Why nothing moves online from a second server to the run's own, for the test's name; empty where it does. Replication is
 * begun by the server that takes the tenant.
 */
export const noWayBack =
  testCluster().place.sslmode === '' ? '' : ' (skipped: a container reaches no server of this machine)';

/** Why a call was refused. Fails where it was not. */
export const failure = (call: Promise<unknown>): Promise<ConnectError> =>
  call.then(
    () => {
      throw new Error('was not refused');
    },
    (error: unknown) => error as ConnectError,
  );

/** A connection for as long as the callback runs; one that is ended from elsewhere fails its queries only. */
export async function connectedTo<T>(url: string, fn: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(clientOptions(url));
  client.on('error', () => undefined);
  await client.connect();
  try {
    return await fn(client);
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** The superuser in a database of the run's server. */
export const inside = <T>(database: string, fn: (client: pg.Client) => Promise<T>): Promise<T> =>
  connectedTo(testCluster().adminUrlTo(database), fn);

function bearerOf(token: () => Promise<string>): Interceptor {
  return (next) => async (request) => {
    request.header.set('authorization', `Bearer ${await token()}`);
    return next(request);
  };
}

export async function runProvisioner({
  schema,
  migrations,
  environment,
  idle,
  metrics: measured,
}: RunOptions): Promise<RunningProvisioner> {
  const cluster = testCluster();
  const password = (role: string): string => new URL(cluster.url(role, 'postgres')).password;
  const provisionerPassword = password('mad_provisioner_admin');
  const migratorPassword = password('mad_migrator');
  await bootstrapTenantServer(cluster.adminUrl, { provisionerPassword, migratorPassword, schema });

  const metadata = await metadataDatabase({ services: [{ schema: 'provisioner', migrations: provisionerMigrations }] });
  const admin = new pg.Client(clientOptions(cluster.adminUrl));
  const rows = new pg.Client(clientOptions(metadata.adminUrl));
  await Promise.all([admin.connect(), rows.connect()]);
  const events: AuditEvent[] = [];
  const ownedRows: OwnedRows = { left: new Map(), removed: new Map(), away: false };
  const identity = await serveIdentity(events, ownedRows);
  const owner = await serveSchemaOwner(schema, migrations ?? noteMigrations(schema));
  const keys = await testServiceKeys(SERVICES);

  const objectsFolder = await mkdtemp(join(tmpdir(), 'mad-objects-'));
  const settings: Record<string, string> = {
    OBJECT_STORE_URL: pathToFileURL(objectsFolder).href,
    PROVISIONER_PORT: '0',
    PROVISIONER_DATABASE_URL: metadata.pooledUrl('mad_provisioner'),
    PROVISIONER_SYSTEM_URL: metadata.pooledUrl('mad_provisioner_system'),
    PROVISIONER_BOSS_URL: metadata.url('mad_provisioner'),
    PROVISIONER_MASTER_KEY: randomBytes(32).toString('base64'),
    PROVISIONER_SERVICE_KEY: JSON.stringify(keys.private.provisioner),
    MAD_SERVICE_KEYS: JSON.stringify(keys.public),
    IDENTITY_ADDRESS: `127.0.0.1:${identity.port}`,
    CATALOG_ADDRESS: `127.0.0.1:${identity.port}`,
    PROVISIONER_TENANT_SCHEMAS: `${schema}=127.0.0.1:${owner.port}`,
    PROVISIONER_SERVERS: JSON.stringify([
      {
        name: 'local',
        ...cluster.place,
        region: 'local',
        connection_budget: 20,
        provisioner_password: provisionerPassword,
        migrator_password: migratorPassword,
      },
    ]),
    PROVISIONER_STOCK_SIZE: '0',
    PROVISIONER_SWEEP_MS: '200',
    PROVISIONER_STEP_LEASE_MS: '1000',
    ...environment,
  };

  const transports: GrpcTransport[] = [];
  let running: RpcServer | undefined;
  let metrics: Metrics | undefined;
  const address = (): string => `127.0.0.1:${running!.port}`;
  const as = (token: () => Promise<string>): GrpcTransport => {
    const transport = grpcTransport(address(), { interceptors: [bearerOf(token)] });
    transports.push(transport);
    return transport;
  };

  const self: RunningProvisioner = {
    schema,
    metadata,
    admin,
    rows,
    environment: settings,
    get address() {
      return address();
    },
    get url() {
      return `http://127.0.0.1:${running!.connectPort}`;
    },
    events,
    ownedRows,
    owner,
    as,
    transport: (service) => as(() => serviceToken(service)),
    tenants: (service = 'identity') => createClient(TenantService, self.transport(service)),
    tenantsAs: (token) =>
      createClient(
        TenantService,
        as(() => Promise.resolve(token)),
      ),
    routes: (service = 'results') => createClient(RouteService, self.transport(service)),
    servers: () =>
      createClient(
        ServerService,
        as(() =>
          platformToken({ permissions: ['create', 'read', 'update'].map((verb) => `platform.servers.${verb}`) }),
        ),
      ),
    operations: () =>
      createClient(
        OperationService,
        as(() => platformToken({ permissions: ['platform.operations.read', 'platform.operations.cancel'] })),
      ),
    async ended(operation) {
      const operations = self.operations();
      for (const until = performance.now() + END_MS; ; await delay(20)) {
        const { operation: now } = await operations.getOperation({ operationId: operation!.operationId });
        if (now!.state !== OperationState.RUNNING) return now!;
        if (performance.now() > until) throw new Error(`the operation never ended: ${now!.step}: ${now!.error}`);
      }
    },
    statistics: () =>
      createClient(
        FleetStatisticsService,
        as(() => platformToken({ permissions: ['platform.servers.read', 'platform.tenants.read'] })),
      ),
    backups: () =>
      createClient(
        BackupService,
        as(() => platformToken({ permissions: BACKUP_PERMISSIONS })),
      ),
    drift: () =>
      createClient(
        DriftService,
        as(() => self.platform('platform.drift.read', 'platform.drift.repair')),
      ),
    rollouts: () =>
      createClient(
        RolloutService,
        as(() => self.platform('platform.rollouts.read', 'platform.rollouts.start', 'platform.rollouts.control')),
      ),
    indexes: () =>
      createClient(
        TenantIndexService,
        as(() => self.platform('platform.indexes.create', 'platform.indexes.read', 'platform.indexes.delete')),
      ),
    platform: (...permissions) => platformToken({ permissions }),
    erasures: () =>
      createClient(
        ErasureService,
        as(() => platformToken({ permissions: ['platform.erasures.read'] })),
      ),
    objectsFolder,
    metricsText: () => metrics!.text(),
    async start() {
      metrics = measured ? createMetrics('provisioner') : undefined;
      running = await startProvisioner(readProvisionerConfig(settings), { logger: silent, metrics });
    },
    async stop() {
      await running?.close();
      running = undefined;
    },
    async objects() {
      const like = `mad\\_${schema}\\_%`;
      const databases = await admin.query<{ name: string }>(
        `SELECT datname AS name FROM pg_database WHERE datname LIKE $1 AND datname !~ '_(template|stock)_[0-9a-f]{16}$' ORDER BY 1`,
        [like],
      );
      const roles = await admin.query<{ name: string }>(
        'SELECT rolname AS name FROM pg_roles WHERE rolname LIKE $1 AND rolname <> ALL ($2) ORDER BY 1',
        [like, [`mad_${schema}_owner`, `mad_${schema}_app`]],
      );
      return { databases: databases.rows.map(({ name }) => name), roles: roles.rows.map(({ name }) => name) };
    },
    async close() {
      for (const transport of transports) transport.close();
      await self.stop();
      await Promise.all([identity.close(), owner.close()]);
      await rm(objectsFolder, { recursive: true, force: true });
      await rows.end();
      await metadata.drop();
      const names = await admin.query<{ name: string }>(
        'SELECT datname AS name FROM pg_database WHERE datname LIKE $1',
        [`mad\\_${schema}\\_%`],
      );
      for (const { name } of names.rows) await admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
      for (const name of (await self.objects()).roles) await admin.query(`DROP ROLE ${name}`);
      await admin.end();
    },
  };
  if (idle !== true) await self.start();
  return self;
}
