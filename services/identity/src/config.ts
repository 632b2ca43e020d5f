import { readEnv, type Env } from '@mad/process';
import { privateJwkSetting, serviceKeysSetting, type ServiceKeys } from '@mad/auth';
import type { JWK } from 'jose';

/** Where identity's schema is and how many connections may go there. */
export interface IdentityDatabaseConfig {
  /** The login bound to one organization at a time. */
  url: string;
  /** The second login, for sign-in, platform administrators and other services. */
  systemUrl: string;
  poolSize: number;
  systemPoolSize: number;
  statementTimeoutMs: number;
  logSql: boolean;
}

/** Everything identity can be told. */
export interface IdentityConfig {
  host: string;
  /** gRPC; 0 takes any free port. */
  port: number;
  /** Connect over HTTP/1.1; default port + 100, or any free port when `port` is 0. */
  connectPort?: number;
  database: IdentityDatabaseConfig;
  /** Where pg-boss connects: directly, not through a pooler. */
  bossUrl: string;
  /** 32 bytes: seals signing keys, digests tokens. Whoever loses it signs everybody out. */
  masterKey: Uint8Array;
  /** Signs identity's calls to other services. */
  servicePrivateJwk: JWK;
  /** Verifies other services' calls. */
  serviceKeys: ServiceKeys;
  /** host:port of the provisioner's gRPC. */
  provisionerAddress: string;
  /** host:port of results' gRPC. */
  resultsAddress: string;
  /** Whether signing in has results open the organization's database. */
  prewarm: boolean;
  provisioning: 'eager' | 'on_first_write';
  tenantSchemas: readonly string[];
  defaultRegion: string;
}

const MASTER_KEY_BYTES = 32;

/** Reads identity's configuration from the environment. Throws a ConfigError that lists every problem. */
export function readIdentityConfig(env: Env): IdentityConfig {
  return readEnv(env, (r) => {
    const url = r.url('IDENTITY_DATABASE_URL');
    const masterKey = Buffer.from(r.secret('IDENTITY_MASTER_KEY'), 'base64');
    if (masterKey.length > 0 && masterKey.length !== MASTER_KEY_BYTES) {
      r.problem('IDENTITY_MASTER_KEY', `must be ${MASTER_KEY_BYTES} bytes in base64`);
    }
    return {
      host: r.string('IDENTITY_HOST', { default: '127.0.0.1' }),
      port: r.integer('IDENTITY_PORT', { default: 7001, min: 0, max: 65_535 }),
      connectPort: r.integer('IDENTITY_CONNECT_PORT', { optional: true, min: 0, max: 65_535 }),
      database: {
        url,
        systemUrl: r.url('IDENTITY_SYSTEM_URL'),
        poolSize: r.integer('IDENTITY_POOL_SIZE', { default: 5, min: 1, max: 1_000 }),
        systemPoolSize: r.integer('IDENTITY_SYSTEM_POOL_SIZE', { default: 2, min: 1, max: 1_000 }),
        statementTimeoutMs: r.integer('STATEMENT_TIMEOUT_MS', { default: 60_000, min: 1 }),
        logSql: r.boolean('LOG_SQL', { default: false }),
      },
      bossUrl: r.url('IDENTITY_BOSS_URL', { optional: true }) ?? url,
      masterKey,
      servicePrivateJwk: r.json('IDENTITY_SERVICE_KEY', privateJwkSetting),
      serviceKeys: r.json('MAD_SERVICE_KEYS', serviceKeysSetting),
      provisionerAddress: r.string('PROVISIONER_ADDRESS', { default: '127.0.0.1:7004' }),
      resultsAddress: r.string('RESULTS_ADDRESS', { default: '127.0.0.1:7003' }),
      prewarm: r.boolean('IDENTITY_PREWARM', { default: true }),
      provisioning: r.oneOf('PROVISIONING', ['eager', 'on_first_write'], 'eager'),
      tenantSchemas: r
        .string('IDENTITY_TENANT_SCHEMAS', {
          default: 'results',
          pattern: /^[a-z][a-z0-9_]{0,30}(,[a-z][a-z0-9_]{0,30})*$/,
          expected: 'names separated by commas',
        })
        .split(','),
      defaultRegion: r.string('IDENTITY_DEFAULT_REGION', {
        default: 'local',
        pattern: /^[a-z][a-z0-9-]{0,62}$/,
        expected: 'a DNS label',
      }),
    };
  });
}

/** What makes the first administrator. */
export interface AdministratorConfig {
  email: string;
  password: string;
}

/** Reads the first administrator from the environment. There is no default password. */
export function readAdministratorConfig(env: Env): AdministratorConfig & { databaseUrl: string; systemUrl: string } {
  return readEnv(env, (r) => ({
    databaseUrl: r.url('IDENTITY_DATABASE_URL'),
    systemUrl: r.url('IDENTITY_SYSTEM_URL'),
    email: r.string('IDENTITY_ADMIN_EMAIL', { pattern: /^[^\s@]+@[^\s@]+$/, expected: 'an e-mail address' }),
    password: r.secret('IDENTITY_ADMIN_PASSWORD', { minLength: 12 }),
  }));
}

/** Reads where the migrator logs in. */
export function readMigrateConfig(env: Env): { url: string } {
  return readEnv(env, (r) => ({ url: r.url('IDENTITY_MIGRATE_URL') }));
}
