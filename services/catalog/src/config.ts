import { privateJwkSetting, serviceKeysSetting, type ServiceKeys, type SigningKey } from '@mad/auth';
import { MINUTE_MS, readEnv, SECOND_MS, type Env } from '@mad/process';

type JWK = SigningKey['privateJwk'];

/** Where catalog's schema is and how many connections may go there. */
export interface CatalogDatabaseConfig {
  /** The login bound to one organization at a time. */
  url: string;
  /** The second login, for the queue and for what comes with the product. */
  systemUrl: string;
  poolSize: number;
  systemPoolSize: number;
  statementTimeoutMs: number;
  logSql: boolean;
}

/** How the queue of tasks is run. */
export interface CatalogQueueConfig {
  /** How long a worker holds a task without a heartbeat. */
  leaseMs: number;
  /** How often the queue is looked after. */
  reapMs: number;
  /** After this without news results is asked how a job stands. */
  reconcileAfterMs: number;
}

/** Everything catalog can be told. */
export interface CatalogConfig {
  host: string;
  /** gRPC; 0 takes any free port. */
  port: number;
  /** Connect over HTTP/1.1; default port + 100, or any free port when `port` is 0. */
  connectPort?: number;
  database: CatalogDatabaseConfig;
  queue: CatalogQueueConfig;
  /** Where pg-boss connects: directly, not through a pooler. */
  bossUrl: string;
  /** Signs catalog's calls to other services, and workers' leases. */
  servicePrivateJwk: JWK;
  /** Verifies other services' calls. */
  serviceKeys: ServiceKeys;
  /** host:port of the neighbours' gRPC. */
  identityAddress: string;
  resultsAddress: string;
  provisionerAddress: string;
  /** When an organization's databases are made: with the organization, or with its first job. */
  provisioning: 'eager' | 'on_first_write';
  /** Where objects are kept, e.g. `file:///var/lib/mad/objects`. */
  objectStoreUrl: string;
  /** Without it the cache is in this process. */
  redisUrl?: string;
  /** RDKit threads; as many as there are cores unless told. */
  chemistryWorkers?: number;
}

/** Reads catalog's configuration from the environment. Throws a ConfigError that lists every problem. */
export function readCatalogConfig(env: Env): CatalogConfig {
  return readEnv(env, (r) => {
    const url = r.url('CATALOG_DATABASE_URL');
    return {
      host: r.string('CATALOG_HOST', { default: '127.0.0.1' }),
      port: r.integer('CATALOG_PORT', { default: 7002, min: 0, max: 65_535 }),
      connectPort: r.integer('CATALOG_CONNECT_PORT', { optional: true, min: 0, max: 65_535 }),
      database: {
        url,
        systemUrl: r.url('CATALOG_SYSTEM_URL'),
        poolSize: r.integer('CATALOG_POOL_SIZE', { default: 5, min: 1, max: 1_000 }),
        systemPoolSize: r.integer('CATALOG_SYSTEM_POOL_SIZE', { default: 2, min: 1, max: 1_000 }),
        statementTimeoutMs: r.integer('STATEMENT_TIMEOUT_MS', { default: 60_000, min: 1 }),
        logSql: r.boolean('LOG_SQL', { default: false }),
      },
      queue: {
        leaseMs: r.integer('CATALOG_LEASE_MS', { default: MINUTE_MS, min: SECOND_MS }),
        reapMs: r.integer('CATALOG_REAP_MS', { default: 5 * SECOND_MS, min: 10 }),
        reconcileAfterMs: r.integer('CATALOG_RECONCILE_AFTER_MS', { default: MINUTE_MS, min: 10 }),
      },
      bossUrl: r.url('CATALOG_BOSS_URL', { optional: true }) ?? url,
      servicePrivateJwk: r.json('CATALOG_SERVICE_KEY', privateJwkSetting),
      serviceKeys: r.json('MAD_SERVICE_KEYS', serviceKeysSetting),
      identityAddress: r.string('IDENTITY_ADDRESS', { default: '127.0.0.1:7001' }),
      resultsAddress: r.string('RESULTS_ADDRESS', { default: '127.0.0.1:7003' }),
      provisionerAddress: r.string('PROVISIONER_ADDRESS', { default: '127.0.0.1:7004' }),
      provisioning: r.oneOf('PROVISIONING', ['eager', 'on_first_write'], 'eager'),
      objectStoreUrl: r.url('OBJECT_STORE_URL'),
      redisUrl: r.url('REDIS_URL', { optional: true }),
      chemistryWorkers: r.integer('CATALOG_CHEMISTRY_WORKERS', { optional: true, min: 1, max: 1_024 }),
    };
  });
}

/** Reads where the migrator logs in. */
export function readMigrateConfig(env: Env): { url: string } {
  return readEnv(env, (r) => ({ url: r.url('CATALOG_MIGRATE_URL') }));
}
