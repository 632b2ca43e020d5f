import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { DescService } from '@bufbuild/protobuf';
import { createClient, type Client, type Interceptor } from '@connectrpc/connect';
import { createMetrics, type Metrics } from '@mad/process';
import type { Organization } from '@mad/proto/identity';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';
import { metadataDatabase, serviceToken, testServiceKeys, userToken, type TestDatabase } from '@mad/testing';
import pg from 'pg';
import { catalogMigrations, startCatalog, type CatalogConfig, type RunningCatalog } from '../src/index.ts';
import { organization, silent, startIdentity, type TestIdentity } from './neighbours.ts';

/** Every permission catalog's user methods ask for. */
export const ALL_PERMISSIONS = [
  'artifacts.create',
  'artifacts.read',
  'cache.read',
  'jobs.cancel',
  'jobs.create',
  'jobs.read',
  'molecules.create',
  'molecules.read',
  'molecules.update',
  'organizations.read',
  'pipelines.create',
  'pipelines.publish',
  'pipelines.read',
];

/** Catalog as it serves, on a database of its own, between small real neighbours. */
export interface TestCatalog {
  acme: Organization;
  globex: Organization;
  identity: TestIdentity;
  database: TestDatabase;
  metrics: Metrics;
  running: RunningCatalog;
  config: CatalogConfig;
  /** Past row-level security. */
  admin: pg.Client;
  /** A client that calls with this token. */
  as<S extends DescService>(service: S, token: string): Client<S>;
  /** A client of a member of the organization, who may do everything. */
  member<S extends DescService>(service: S, of: Organization): Promise<Client<S>>;
  /** A client of another service. */
  service<S extends DescService>(service: S, name: string): Promise<Client<S>>;
  close(): Promise<void>;
}

/** Starts catalog. `config` overrides where the other neighbours are. */
export async function startTestCatalog(options: { config?: Partial<CatalogConfig> } = {}): Promise<TestCatalog> {
  const acme = organization({ name: 'Acme', slug: 'acme' });
  const globex = organization({ name: 'Globex', slug: 'globex' });
  const identity = await startIdentity([acme, globex]);
  const database = await metadataDatabase({ services: [{ schema: 'catalog', migrations: catalogMigrations }] });
  const folder = await mkdtemp(join(tmpdir(), 'mad-catalog-'));
  const keys = await testServiceKeys(['catalog', 'identity', 'results', 'worker', 'provisioner']);
  const config: CatalogConfig = {
    host: '127.0.0.1',
    port: 0,
    database: {
      url: database.pooledUrl('mad_catalog'),
      systemUrl: database.pooledUrl('mad_catalog_system'),
      poolSize: 5,
      systemPoolSize: 2,
      statementTimeoutMs: 20_000,
      logSql: false,
    },
    queue: { leaseMs: 60_000, reapMs: 1_000, reconcileAfterMs: 60_000 },
    bossUrl: database.url('mad_catalog'),
    servicePrivateJwk: keys.private.catalog,
    serviceKeys: keys.public,
    identityAddress: identity.address,
    resultsAddress: '127.0.0.1:1',
    provisionerAddress: identity.address,
    provisioning: 'eager',
    objectStoreUrl: pathToFileURL(folder).href,
    chemistryWorkers: 2,
    ...options.config,
  };
  const metrics = createMetrics('catalog');
  const running = await startCatalog(config, { logger: silent, metrics });
  const admin = new pg.Client(database.adminUrl);
  await admin.connect();
  const transports: GrpcTransport[] = [];

  const as = <S extends DescService>(service: S, token: string): Client<S> => {
    const authorize: Interceptor = (next) => (request) => {
      if (token !== '') request.header.set('authorization', `Bearer ${token}`);
      return next(request);
    };
    const transport = grpcTransport(`127.0.0.1:${running.port}`, { interceptors: [authorize] });
    transports.push(transport);
    return createClient(service, transport);
  };
  return {
    acme,
    globex,
    identity,
    database,
    metrics,
    running,
    config,
    admin,
    as,
    member: async (service, { orgId }) => as(service, await userToken({ orgId, permissions: ALL_PERMISSIONS })),
    service: async (service, name) => as(service, await serviceToken(name)),
    async close() {
      for (const transport of transports) transport.close();
      await running.close();
      await identity.close();
      await admin.end();
      await database.drop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
