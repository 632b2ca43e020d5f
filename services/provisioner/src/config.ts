import { DAY_MS, MINUTE_MS, readEnv, SECOND_MS, type Env, type EnvReader } from '@mad/process';
import { privateJwkSetting, serviceKeysSetting, type ServiceIdentity, type ServiceKeys } from '@mad/auth';
import type { BackupPolicy } from './backups/schedule.ts';
import { MAX_SCHEMA_LENGTH } from './domain/names.ts';
import { parseMasterKeys } from './secrets/local-keys.ts';
import { inPlaceOf, type MasterKeys } from './secrets/master-keys.ts';
import { remembered } from './secrets/remembered-keys.ts';
import { vaultKeys } from './secrets/vault-keys.ts';
import { SERVER_DEFAULTS, type ServerRegistration } from './servers/registration.ts';

/** Everything provisioner is told from outside. */
export interface ProvisionerConfig {
  host: string;
  /** gRPC; 0 takes any free port. */
  port: number;
  /** Connect over HTTP/1.1; default port + 100, or any free port when `port` is 0. */
  connectPort?: number;
  databaseUrl: string;
  systemUrl: string;
  /** Where pg-boss connects: directly, not through a pooler. */
  bossUrl: string;
  poolSize: number;
  systemPoolSize: number;
  statementTimeoutMs: number;
  masterKeys: MasterKeys;
  /** Signs provisioner's calls to other services. */
  servicePrivateJwk: ServiceIdentity['privateJwk'];
  serviceKeys: ServiceKeys;
  /** "host:port" of identity, for its keys and its audit log. */
  identityAddress: string;
  /** "host:port" of catalog, for its part of an organization's erasure. */
  catalogAddress: string;
  /** "host:port" of each tenant schema's owner. */
  tenantSchemas: Readonly<Record<string, string>>;
  /** Servers registered at start. */
  servers: readonly ServerRegistration[];
  /** The region of organizations that name none. */
  defaultRegion: string;
  /** How long a step may be silent before another process takes over. */
  stepLeaseMs: number;
  /** How often undone work is looked for. */
  sweepMs: number;
  /** How often each server is looked at: whether it answers, its sessions, its bytes. */
  serverSampleMs: number;
  /** Organizations with metrics of their own; 0: none. */
  topTenants: number;
  /** How often rows are compared with servers and object store. */
  reconcileMs: number;
  /** How often each tenant's database is looked at for drift, in hours; 0: only when asked for. */
  driftEveryHours: number;
  /** Clones that wait on each server for each tenant schema. */
  stockSize: number;
  /** Clones made per minute at most, on each server for each tenant schema. */
  stockPerMinute: number;
  /** How long a process of results may use its share of connections without renewing it. */
  shareMs: number;
  /** How long the leavings of a failed operation wait for somebody to go on with it. */
  cleanupGraceMs: number;
  /** A login is replaced when its password is so old, in days; 0: only when asked for. */
  rotateAfterDays: number;
  /** Logins replaced per minute at most. */
  rotatePerMinute: number;
  /** How long sessions under a login that is no longer in use may go on. */
  rotateGraceMs: number;
  /** Where archives are kept. */
  objectStoreUrl: string;
  /** Of organizations that have no policy of their own. */
  backupPolicy: BackupPolicy;
  /** Of the metadata database: after so long without an archive, health says that one is overdue. */
  metadataBackupPolicy: BackupPolicy;
  /** How long the database a restore replaced is kept unless the request says. */
  replacedKeepMs: number;
}

const ADDRESS = /^[^\s:]+:\d{1,5}$/;
const MOUNT = /^[\w-]+(\/[\w-]+)*$/;
const KEY_NAME = /^[\w.-]{1,128}$/;
const LOOPBACK = new Set(['localhost', '127.0.0.1', '[::1]']);
const REGION = /^[a-z][a-z0-9-]{0,62}$/;

/** Reads the configuration; throws a ConfigError that lists every problem. */
export function readProvisionerConfig(env: Env): ProvisionerConfig {
  return readEnv(env, (r) => {
    const databaseUrl = r.url('PROVISIONER_DATABASE_URL');
    return {
      host: r.string('PROVISIONER_HOST', { default: '127.0.0.1' }),
      port: r.integer('PROVISIONER_PORT', { default: 7004, min: 0, max: 65_435 }),
      connectPort: r.integer('PROVISIONER_CONNECT_PORT', { optional: true, min: 0, max: 65_535 }),
      databaseUrl,
      systemUrl: r.url('PROVISIONER_SYSTEM_URL'),
      bossUrl: r.url('PROVISIONER_BOSS_URL', { optional: true }) ?? databaseUrl,
      poolSize: r.integer('PROVISIONER_POOL_SIZE', { default: 2, min: 1 }),
      systemPoolSize: r.integer('PROVISIONER_SYSTEM_POOL_SIZE', { default: 5, min: 1 }),
      statementTimeoutMs: r.integer('STATEMENT_TIMEOUT_MS', { default: MINUTE_MS, min: 1 }),
      masterKeys: readMasterKeys(r),
      servicePrivateJwk: r.json('PROVISIONER_SERVICE_KEY', privateJwkSetting),
      serviceKeys: r.json('MAD_SERVICE_KEYS', serviceKeysSetting),
      identityAddress: r.string('IDENTITY_ADDRESS', {
        default: '127.0.0.1:7001',
        pattern: ADDRESS,
        expected: 'host:port',
      }),
      catalogAddress: r.string('CATALOG_ADDRESS', {
        default: '127.0.0.1:7002',
        pattern: ADDRESS,
        expected: 'host:port',
      }),
      tenantSchemas: readTenantSchemas(r),
      servers: r.json('PROVISIONER_SERVERS', parseServers, { default: [] }),
      defaultRegion: r.string('PROVISIONER_DEFAULT_REGION', { default: 'local', pattern: REGION }),
      stepLeaseMs: r.integer('PROVISIONER_STEP_LEASE_MS', { default: 30 * SECOND_MS, min: 100 }),
      sweepMs: r.integer('PROVISIONER_SWEEP_MS', { default: 5 * SECOND_MS, min: 50 }),
      serverSampleMs: r.integer('PROVISIONER_SERVER_SAMPLE_MS', { default: 10 * SECOND_MS, min: 100 }),
      topTenants: r.integer('PROVISIONER_TOP_TENANTS', { default: 20, min: 0, max: 1_000 }),
      reconcileMs: r.integer('PROVISIONER_RECONCILE_MS', { default: 60 * MINUTE_MS, min: 100 }),
      driftEveryHours: r.integer('PROVISIONER_DRIFT_EVERY_HOURS', { default: 24, min: 0, max: 8_760 }),
      stockSize: r.integer('PROVISIONER_STOCK_SIZE', { default: 2, min: 0, max: 1_000 }),
      stockPerMinute: r.integer('PROVISIONER_STOCK_PER_MINUTE', { default: 60, min: 1, max: 6_000 }),
      shareMs: r.integer('PROVISIONER_SHARE_MS', { default: 15 * SECOND_MS, min: 5 * SECOND_MS }),
      cleanupGraceMs: r.integer('PROVISIONER_CLEANUP_GRACE_MS', { default: 10 * MINUTE_MS, min: 0 }),
      objectStoreUrl: r.url('OBJECT_STORE_URL'),
      backupPolicy: {
        everyHours: r.integer('PROVISIONER_BACKUP_EVERY_HOURS', { default: 24, min: 0, max: 8_760 }),
        keep: r.integer('PROVISIONER_BACKUP_KEEP', { default: 7, min: 1, max: 1_000 }),
      },
      metadataBackupPolicy: readMetadataBackupPolicy(r),
      replacedKeepMs: r.integer('PROVISIONER_REPLACED_KEEP_MS', { default: 7 * DAY_MS, min: 0 }),
      rotateAfterDays: r.integer('PROVISIONER_ROTATE_AFTER_DAYS', { default: 30, min: 0, max: 3_650 }),
      rotatePerMinute: r.integer('PROVISIONER_ROTATE_PER_MINUTE', { default: 30, min: 1, max: 6_000 }),
      rotateGraceMs: r.integer('PROVISIONER_ROTATE_GRACE_MS', { default: 10 * MINUTE_MS, min: 0 }),
    };
  });
}

/** How often the metadata database is archived by the clock, and how many of these archives are kept. */
export function readMetadataBackupPolicy(r: EnvReader): BackupPolicy {
  return {
    everyHours: r.integer('PROVISIONER_METADATA_BACKUP_EVERY_HOURS', { default: 24, min: 0, max: 8_760 }),
    keep: r.integer('PROVISIONER_METADATA_BACKUP_KEEP', { default: 7, min: 1, max: 1_000 }),
  };
}

/**
 * The installation's master keys: those in the settings, a key service's, or both while one takes over what the other
 * sealed; `PROVISIONER_KEY_SOURCE` says which seals.
 */
export function readMasterKeys(r: EnvReader): MasterKeys {
  const service = readVaultKeys(r);
  const text =
    service === undefined ? r.secret('PROVISIONER_MASTER_KEY') : r.secret('PROVISIONER_MASTER_KEY', { optional: true });
  const local = localKeys(text, (message) => r.problem('PROVISIONER_MASTER_KEY', message));
  const source = r.oneOf('PROVISIONER_KEY_SOURCE', ['local', 'vault'], service === undefined ? 'local' : 'vault');
  const [now, before] = source === 'vault' ? [service, local] : [local, service];
  // A missing one was reported already, but for a source that was chosen and not described.
  if (now === undefined && source === 'vault')
    r.problem('PROVISIONER_VAULT_URL', 'is required with PROVISIONER_KEY_SOURCE=vault');
  if (now === undefined && service !== undefined) {
    r.problem('PROVISIONER_MASTER_KEY', 'is required with PROVISIONER_KEY_SOURCE=local');
  }
  if (now === undefined) return undefined as never;
  return before === undefined ? now : inPlaceOf(before, now);
}

function localKeys(text: string | undefined, problem: (message: string) => void): MasterKeys | undefined {
  // A missing one was reported already where it is required.
  if (text === undefined || text === '') return undefined;
  try {
    return parseMasterKeys(text);
  } catch (error) {
    problem((error as Error).message);
    return undefined;
  }
}

function readVaultKeys(r: EnvReader): MasterKeys | undefined {
  const url = r.url('PROVISIONER_VAULT_URL', { optional: true });
  const mount = r.string('PROVISIONER_VAULT_MOUNT', { default: 'transit', pattern: MOUNT, expected: 'a path' });
  const timeoutMs = r.integer('PROVISIONER_VAULT_TIMEOUT_MS', { default: 5 * SECOND_MS, min: 100, max: MINUTE_MS });
  const keepMs = r.integer('PROVISIONER_VAULT_KEEP_MS', { default: 60 * MINUTE_MS, min: 1, max: DAY_MS });
  const key = r.string('PROVISIONER_VAULT_KEY', { default: 'mad', pattern: KEY_NAME, expected: "a key's name" });
  if (url === undefined) return undefined;
  const tokenPath = r.string('PROVISIONER_VAULT_TOKEN_PATH');
  const { protocol, hostname } = new URL(url);
  if (protocol !== 'https:' && !(protocol === 'http:' && LOOPBACK.has(hostname))) {
    r.problem('PROVISIONER_VAULT_URL', 'must be https, or http to this machine itself');
  }
  return remembered(vaultKeys({ url, mount, key, tokenPath, timeoutMs }), keepMs);
}

/** Who owns each tenant schema, as "host:port" by name, from `results=host:port,other=host:port`. */
export function readTenantSchemas(r: EnvReader): Record<string, string> {
  const text = r.string('PROVISIONER_TENANT_SCHEMAS', { default: 'results=127.0.0.1:7003' });
  const schemas: Record<string, string> = {};
  for (const entry of text.split(',')) {
    const [schema = '', address = ''] = entry.trim().split('=', 2);
    const named = /^[a-z][a-z0-9_]*$/.test(schema) && schema.length <= MAX_SCHEMA_LENGTH;
    if (named && ADDRESS.test(address)) schemas[schema] = address;
    else r.problem('PROVISIONER_TENANT_SCHEMAS', 'must be like results=127.0.0.1:7003,other=host:port');
  }
  return schemas;
}

function objectOf(value: unknown): object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('must be a JSON object');
  return value;
}

/** A list of servers as `PROVISIONER_SERVERS` gives it. Throws an Error that names the entry's field. */
export function parseServers(value: unknown): ServerRegistration[] {
  if (!Array.isArray(value)) throw new Error('must be a JSON list');
  return value.map((entry: unknown, index) => {
    const server = objectOf(entry) as Record<string, unknown>;
    const text = (name: string, fallback?: string): string => {
      const found = server[name] ?? fallback;
      if (typeof found !== 'string') throw new Error(`[${index}].${name} must be a string`);
      return found;
    };
    const number = (name: string, fallback?: number): number => {
      const found = server[name] ?? fallback;
      if (!Number.isSafeInteger(found) || (found as number) < 1)
        throw new Error(`[${index}].${name} must be a positive number`);
      return found as number;
    };
    return {
      name: text('name'),
      host: text('host'),
      port: number('port'),
      region: text('region', 'local'),
      sslmode: text('sslmode', ''),
      connectionBudget: number('connection_budget', SERVER_DEFAULTS.connectionBudget),
      maxTenants: number('max_tenants', SERVER_DEFAULTS.maxTenants),
      provisionerPassword: text('provisioner_password'),
      migratorPassword: text('migrator_password'),
    };
  });
}
