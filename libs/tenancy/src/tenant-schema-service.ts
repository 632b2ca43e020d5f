import { Code, ConnectError } from '@connectrpc/connect';
import {
  clientOptions,
  withClient,
  DataChangeUnfinished,
  fingerprintOf,
  migrate,
  migrationStatus,
  revert,
  schemaObjects,
  tryMigrations,
  type MigrationClass,
} from '@mad/postgres';
import { SECOND_MS, type Logger } from '@mad/process';
import { TenantSchemaService, type DatabaseTarget } from '@mad/proto/tenancy';
import { bind, invalid, rpcError, type BoundService } from '@mad/rpc';
import { failureOf } from './failure.ts';
import { unavailable } from './tenant-errors.ts';
import { listTables, makePartitions } from './tenant-tables.ts';

export interface TenantSchemaOptions {
  /** The tenant schema, e.g. `results`: also the Postgres schema inside every database. */
  schema: string;
  migrations: readonly MigrationClass[];
  logger: Logger;
}

/**
 * The TenantSchemaService of a schema's owner: it knows the tables and works on whatever database the provisioner
 * names, as the role the provisioner names.
 */
export function tenantSchemaService({ schema, migrations, logger }: TenantSchemaOptions): BoundService {
  const sorted = [...migrations].sort((a, b) => a.time - b.time);
  const names = sorted.map(({ migrationName }) => migrationName);

  const versionOf = (applied: readonly string[]): string => applied.at(-1) ?? '';

  return bind(TenantSchemaService, {
    listMigrations() {
      const list = sorted.map(({ migrationName: name, checksum, sql }) => {
        return { name, checksum, up: sql.up, transactional: sql.transaction !== false };
      });
      return { schema, migrations: list };
    },

    async migrateDatabase({ target, version, budgetMs }) {
      if (version !== '' && !names.includes(version)) throw invalid('version', `no migration is named ${version}`);
      const options = migratorOptions(target);
      return onDatabase(target, async () => {
        const { applied: before, unknown } = await migrationStatus(options);
        // A database ahead of this code belongs to a newer release of it: going back is that release's to do.
        if (unknown.length > 0)
          throw invalid('target', `has migrations this version does not know: ${unknown.join(', ')}`);
        const last = version === '' ? names.length : names.indexOf(version) + 1;
        const applied: string[] = [];
        if (before.length > last) {
          await revert(options, before.length - last);
          applied.push(...before.slice(last).toReversed());
        } else if (before.length < last) {
          const limit = budgetMs === 0 ? {} : { budgetMs };
          try {
            applied.push(...(await migrate({ ...options, ...limit, to: names[last - 1] })));
          } catch (error) {
            if (!(error instanceof DataChangeUnfinished)) throw error;
            const { progress } = error;
            const unfinished = { ...progress, changed: BigInt(progress.changed), total: BigInt(progress.total) };
            return { version: versionOf((await migrationStatus(options)).applied), unfinished };
          }
        }
        logger.info({ database: target?.database, schema, applied }, 'tenant database migrated');
        return { applied, version: names[last - 1] ?? '', fingerprint: await fingerprint(options.url) };
      });
    },

    async tryMigrations({ target, version }) {
      const options = migratorOptions(target);
      if (version !== '' && !names.includes(version)) throw invalid('version', `no migration is named ${version}`);
      return onDatabase(target, async () => {
        const { unknown } = await migrationStatus(options);
        if (unknown.length > 0)
          throw invalid('target', `has migrations this version does not know: ${unknown.join(', ')}`);
        const { rowsToChange, ...found } = await tryMigrations({
          ...options,
          to: version === '' ? names.at(-1) : version,
        });
        return { ...found, rowsToChange: BigInt(rowsToChange) };
      });
    },

    async fingerprintDatabase({ target }) {
      const options = migratorOptions(target);
      return onDatabase(target, async () => {
        const { applied, unknown } = await migrationStatus(options);
        return { fingerprint: await fingerprint(options.url), version: versionOf([...applied, ...unknown]) };
      });
    },

    async listTables({ target, snapshot }) {
      const options = migratorOptions(target);
      return onDatabase(target, async () => {
        const { applied, unknown } = await migrationStatus(options);
        const { tables, sequences } = await listTables(options.url, options.ownerRole, schema, snapshot);
        const sized = tables.map((table) => ({ ...table, sizeBytes: BigInt(table.sizeBytes) }));
        return { tables: sized, sequences, version: versionOf([...applied, ...unknown]) };
      });
    },

    async makePartitions({ target, partitions }) {
      const { url, ownerRole } = migratorOptions(target);
      partitions.forEach(({ name, partitionOf, bound }, index) => {
        if (name === '' || partitionOf === '' || !/^(FOR VALUES |DEFAULT$)/.test(bound)) {
          throw invalid(`partitions[${index}]`, 'needs a name, partition_of, and a bound: FOR VALUES … or DEFAULT');
        }
      });
      return onDatabase(target, async () => ({ made: await makePartitions(url, ownerRole, schema, partitions) }));
    },
  });

  function migratorOptions(target: DatabaseTarget | undefined): Parameters<typeof migrate>[0] {
    if (target === undefined) throw invalid('target', 'is required');
    return { url: urlOf(target), ownerRole: target.role, schema, migrations: sorted };
  }

  async function fingerprint(url: string): Promise<string> {
    const config = { ...clientOptions(url), application_name: 'mad-catalog' };
    return withClient(config, async (client) => fingerprintOf(await schemaObjects(client, schema)));
  }
}

/** Somebody held a table for too long, or waited for one of ours: lock_not_available, deadlock_detected. */
const HELD: ReadonlySet<string> = new Set(['55P03', '40P01']);

function urlOf(target: DatabaseTarget): string {
  const host = target.host.includes(':') ? `[${target.host}]` : target.host;
  const url = new URL(`postgres://${host}:${target.port}`);
  url.username = encodeURIComponent(target.user);
  url.password = encodeURIComponent(target.password);
  url.pathname = encodeURIComponent(target.database);
  if (target.sslmode !== '') url.searchParams.set('sslmode', target.sslmode);
  return url.href;
}

async function onDatabase<T>(target: DatabaseTarget | undefined, fn: () => Promise<T>): Promise<T> {
  try {
    return await fn();
  } catch (error) {
    const about = { database: target?.database ?? '' };
    if (failureOf(error, 'connect') !== undefined) throw unavailable(about, error);
    const { code, message } = error as { code?: unknown; message: string };
    if (error instanceof ConnectError || typeof code !== 'string') throw error;
    // What Postgres says names what the migration met: whoever runs it needs to know.
    if (!HELD.has(code)) throw rpcError(Code.FailedPrecondition, 'MIGRATION_FAILED', message, about, { cause: error });
    const options = { retryAfterMs: SECOND_MS, cause: error };
    throw rpcError(Code.Aborted, 'MIGRATION_FAILED', message, about, options);
  }
}
