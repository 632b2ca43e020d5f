import { MINUTE_MS, readEnv, type Env } from '@mad/process';
import { privateJwkSetting, serviceKeysSetting, type ServiceIdentity, type ServiceKeys } from '@mad/auth';

/** Everything results can be told. */
export interface ResultsConfig {
  host: string;
  /** gRPC; 0 takes any free port. */
  port: number;
  /** Connect over HTTP/1.1; default port + 100, or any free port when `port` is 0. */
  connectPort?: number;
  /** host:port of each neighbour's gRPC. */
  provisionerAddress: string;
  catalogAddress: string;
  identityAddress: string;
  /** Signs results' calls to other services. */
  servicePrivateJwk: ServiceIdentity['privateJwk'];
  /** Verifies other services' calls; catalog's also verifies leases. */
  serviceKeys: ServiceKeys;
  /** Connections per tenant at most. */
  tenantPoolMax: number;
  /** Calls of one tenant at most, running and waiting; more are refused at once. */
  tenantInFlight: number;
  /** Calls at once on one server while several tenants are active; undefined is four per core of this machine. */
  serverTurns?: number | undefined;
  /** Tenants kept open at most. */
  tenantsOpen: number;
  /** An idle tenant connection is closed after this. */
  tenantIdleMs: number;
  statementTimeoutMs: number;
  /** Results answer later jobs for so many days; undefined is for ever. */
  cacheTtlDays?: number | undefined;
  /** Where structures of poses and exports are kept. */
  objectStoreUrl: string;
  /** Hits in a file of an export. */
  exportPartRows: number;
  /** Retention is applied by the clock so often, in hours; 0 never. */
  retentionEveryHours: number;
  /** A policy is applied by the clock so long after it was set, at the earliest. */
  retentionGraceHours: number;
  /** Rows of a job that a step of retention looks at, at most: it is one transaction, and its statements are short. */
  retentionSliceRows: number;
  /** Wakes those who watch a job at another process of results. */
  redisUrl?: string;
  /** This process's name, shown in pg_stat_activity. */
  node: string;
}

/** Every service's public key; catalog's must be there, because it signs leases. */
function keysWithCatalog(value: unknown): ServiceKeys {
  const keys = serviceKeysSetting(value);
  if (!Object.hasOwn(keys, 'catalog')) throw new Error('must hold the key of catalog: it signs leases');
  return keys;
}

/** Reads results' configuration from the environment. Throws a ConfigError that lists every problem. */
export function readResultsConfig(env: Env): ResultsConfig {
  return readEnv(env, (r) => ({
    host: r.string('RESULTS_HOST', { default: '127.0.0.1' }),
    port: r.integer('RESULTS_PORT', { default: 7003, min: 0, max: 65_535 }),
    connectPort: r.integer('RESULTS_CONNECT_PORT', { optional: true, min: 0, max: 65_535 }),
    provisionerAddress: r.string('PROVISIONER_ADDRESS', { default: '127.0.0.1:7004' }),
    catalogAddress: r.string('CATALOG_ADDRESS', { default: '127.0.0.1:7002' }),
    identityAddress: r.string('IDENTITY_ADDRESS', { default: '127.0.0.1:7001' }),
    servicePrivateJwk: r.json('RESULTS_SERVICE_KEY', privateJwkSetting),
    serviceKeys: r.json('MAD_SERVICE_KEYS', keysWithCatalog),
    tenantPoolMax: r.integer('RESULTS_TENANT_POOL_MAX', { default: 10, min: 1, max: 1000 }),
    tenantInFlight: r.integer('RESULTS_TENANT_IN_FLIGHT', { default: 256, min: 1, max: 100_000 }),
    serverTurns: r.integer('RESULTS_SERVER_TURNS', { optional: true, min: 1, max: 10_000 }),
    tenantsOpen: r.integer('RESULTS_TENANTS_OPEN', { default: 1000, min: 1, max: 100_000 }),
    tenantIdleMs: r.integer('RESULTS_TENANT_IDLE_MS', { default: 5 * MINUTE_MS, min: 100 }),
    statementTimeoutMs: r.integer('STATEMENT_TIMEOUT_MS', { default: MINUTE_MS, min: 1 }),
    cacheTtlDays: r.integer('RESULTS_CACHE_TTL_DAYS', { optional: true, min: 1, max: 36_500 }),
    objectStoreUrl: r.url('OBJECT_STORE_URL'),
    exportPartRows: r.integer('RESULTS_EXPORT_PART_ROWS', { default: 100_000, min: 1, max: 1_000_000 }),
    retentionEveryHours: r.integer('RESULTS_RETENTION_EVERY_HOURS', { default: 24, min: 0, max: 8760 }),
    retentionGraceHours: r.integer('RESULTS_RETENTION_GRACE_HOURS', { default: 24, min: 0, max: 8760 }),
    retentionSliceRows: r.integer('RESULTS_RETENTION_SLICE_ROWS', { default: 10_000, min: 1, max: 1_000_000 }),
    redisUrl: r.url('REDIS_URL', { optional: true }),
    node: r.string('RESULTS_NODE', { default: 'mad-results' }),
  }));
}
