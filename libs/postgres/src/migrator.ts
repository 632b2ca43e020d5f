import { isDeepStrictEqual } from 'node:util';
import { SECOND_MS } from '@mad/process';
import pg from 'pg';
import type { DataSource } from 'typeorm';
import { schemaFingerprint } from './catalog.ts';
import { clientOptions } from './client-options.ts';
import { withClient } from './with-client.ts';
import { openDataSource } from './data-source.ts';
import { countPending, DataChangeUnfinished, limitDataChanges } from './data-change.ts';
import type { MigrationClass } from './migration.ts';
import { createPool } from './pool.ts';

/** A migration that waits longer for a table gives up, and leaves the queue of those who wait behind it. */
const LOCK_TIMEOUT_MS = 10 * SECOND_MS;

export interface MigratorOptions {
  /** The migrator's login (NOINHERIT, may become the owner). A direct connection, not through a pooler. */
  url: string;
  /** The role that shall own what the migrations make. */
  ownerRole: string;
  schema: string;
  migrations: readonly MigrationClass[];
  /** Stop after the migration of this name; without it all run. */
  to?: string;
  /** Changes of rows end after so long, unfinished: the next call goes on. Without it they go on to their end. */
  budgetMs?: number;
  log?: (message: string) => void;
}

/** Names, oldest first. `unknown` are recorded in the database and not in the code. */
export interface MigrationStatus {
  applied: string[];
  pending: string[];
  unknown: string[];
}

const id = pg.escapeIdentifier;

/** In order of time. Two of the same minute have no order: throws. */
function ordered(migrations: readonly MigrationClass[]): MigrationClass[] {
  const sorted = [...migrations].sort((a, b) => a.time - b.time);
  sorted.forEach((migration, index) => {
    const next = sorted[index + 1];
    if (next?.time === migration.time) {
      throw new Error(`two migrations have the same time: ${migration.migrationName}, ${next.migrationName}`);
    }
  });
  return sorted;
}

function upTo(migrations: readonly MigrationClass[], to: string | undefined): MigrationClass[] {
  const sorted = ordered(migrations);
  if (to === undefined) return sorted;
  const last = sorted.findIndex(({ migrationName }) => migrationName === to);
  if (last < 0) throw new Error(`no migration is named ${to}`);
  return sorted.slice(0, last + 1);
}

/** Runs `fn` as the schema's owner while no other migrator of that schema in that database does. */
async function withOwner<T>(options: MigratorOptions, fn: (dataSource: DataSource) => Promise<T>): Promise<T> {
  return withClient({ ...clientOptions(options.url), application_name: 'mad-migrate-lock' }, async (lock) => {
    await lock.query(`SELECT pg_advisory_lock(hashtext('mad.migrate.' || $1))`, [options.schema]);
    const pool = createPool({
      url: options.url,
      max: 1,
      applicationName: 'mad-migrate',
      sessionOptions: `-c role=${options.ownerRole} -c search_path=${options.schema},public -c lock_timeout=${LOCK_TIMEOUT_MS}`,
    });
    const migrations = upTo(options.migrations, options.to);
    const dataSource = await openDataSource(pool, { schema: options.schema, migrations });
    if (options.budgetMs !== undefined) limitDataChanges(dataSource, options.budgetMs);
    try {
      return await fn(dataSource);
    } finally {
      await dataSource.destroy();
    }
  });
}

/** What the code runs under by default may read which migrations ran, and must not rewrite it. */
async function protectRecord(dataSource: DataSource, schema: string): Promise<void> {
  const grants = await dataSource.query<{ table: string; grantee: string }[]>(
    `SELECT DISTINCT table_name AS table, grantee FROM information_schema.role_table_grants
     WHERE table_schema = $1 AND table_name IN ('migrations', 'data_changes') AND grantee <> current_user
       AND privilege_type <> 'SELECT'`,
    [schema],
  );
  for (const { table, grantee } of grants) {
    await dataSource.query(`REVOKE INSERT, UPDATE, DELETE ON ${id(schema)}.${id(table)} FROM ${id(grantee)}`);
  }
}

/**
 * Brings a schema up to date, each migration in a transaction of its own; one migrator at a time. The record is the
 * table `<schema>.migrations`. Returns the names of those that ran. Throws Postgres's error, with the migration's name
 * in the message, when one fails: that one is rolled back, those before it stay. Throws DataChangeUnfinished when
 * `budgetMs` was not enough.
 */
export async function migrate(options: MigratorOptions): Promise<string[]> {
  return withOwner(options, async (dataSource) => {
    const before = await appliedNames(dataSource, options.schema);
    try {
      const ran = await dataSource.runMigrations({ transaction: 'each' });
      await protectRecord(dataSource, options.schema);
      for (const { name } of ran) options.log?.(`${options.schema}: ${name}`);
      return ran.map(({ name }) => name);
    } catch (error) {
      // Where the connection is lost there is nothing to be done, and the error says more.
      await protectRecord(dataSource, options.schema).catch(() => undefined);
      if (error instanceof DataChangeUnfinished) throw error;
      const applied = new Set([...before, ...(await appliedNames(dataSource, options.schema))]);
      const failed = upTo(options.migrations, options.to).find(({ migrationName }) => !applied.has(migrationName));
      if (failed !== undefined) {
        (error as Error).message = `migration ${failed.migrationName} failed: ${(error as Error).message}`;
      }
      throw error;
    }
  });
}

/** What a try ran and rolled back, and what it did not run: what cannot stand in a transaction, and all that comes after. */
export interface MigrationTry {
  tried: string[];
  untried: string[];
  /** Rows that the first one not run is to change, as they would be then. */
  rowsToChange: number;
}

/**
 * Runs what `migrate` would in one transaction and rolls it back. Throws Postgres's error, with the migration's name in
 * the message, when one fails. Tables it changes are locked meanwhile; it waits for them a fifth of what `migrate` does.
 */
export async function tryMigrations(options: MigratorOptions): Promise<MigrationTry> {
  return withOwner(options, async (dataSource) => {
    const applied = new Set(await appliedNames(dataSource, options.schema));
    const pending = upTo(options.migrations, options.to).filter(({ migrationName }) => !applied.has(migrationName));
    const barrier = pending.findIndex(({ sql }) => sql.transaction === false);
    const able = barrier < 0 ? pending : pending.slice(0, barrier);
    const runner = dataSource.createQueryRunner();
    let rowsToChange = 0;
    try {
      await runner.query('BEGIN');
      await runner.query(`SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS / 5}`);
      for (const { migrationName, sql } of able) {
        try {
          await runner.query(sql.up);
        } catch (error) {
          (error as Error).message = `migration ${migrationName} failed: ${(error as Error).message}`;
          throw error;
        }
      }
      const data = pending[able.length]?.sql.data;
      if (data !== undefined) rowsToChange = await countPending(runner, data);
    } finally {
      await runner.query('ROLLBACK');
      await runner.release();
    }
    const names = (migrations: readonly MigrationClass[]): string[] =>
      migrations.map(({ migrationName: name }) => name);
    return { tried: names(able), untried: names(pending.slice(able.length)), rowsToChange };
  });
}

/** Undoes the last `steps` migrations, the latest first. Returns how many it undid. */
export async function revert(options: MigratorOptions, steps = 1): Promise<number> {
  return withOwner(options, async (dataSource) => {
    let undone = 0;
    while (undone < steps) {
      const last = (await appliedNames(dataSource, options.schema)).at(-1);
      if (last === undefined) break;
      const migration = options.migrations.find(({ migrationName }) => migrationName === last);
      await dataSource.undoLastMigration({ transaction: migration?.sql.transaction === false ? 'none' : 'each' });
      undone += 1;
    }
    return undone;
  });
}

async function appliedNames(dataSource: DataSource, schema: string): Promise<string[]> {
  const table = `${id(schema)}.migrations`;
  const [found] = await dataSource.query<{ name: string | null }[]>('SELECT to_regclass($1) AS name', [table]);
  if (found?.name == null) return [];
  const rows = await dataSource.query<{ name: string }[]>(`SELECT name FROM ${table} ORDER BY "timestamp"`);
  return rows.map(({ name }) => name);
}

/** Which migrations ran, which wait, and which ran that this code does not know. */
export async function migrationStatus(options: MigratorOptions): Promise<MigrationStatus> {
  return withOwner(options, async (dataSource) => {
    const applied = await appliedNames(dataSource, options.schema);
    const known = ordered(options.migrations).map(({ migrationName }) => migrationName);
    return {
      applied: applied.filter((name) => known.includes(name)),
      pending: known.filter((name) => !applied.includes(name)),
      unknown: applied.filter((name) => !known.includes(name)),
    };
  });
}

/**
 * For the test that every migration can be undone: up, down to nothing, up again, one migration at a time. Returns the
 * schema's fingerprint after each of the three (the first and last must be equal and the middle one empty), and the
 * latest migration whose way back did not lead to where it started, if any (those before it cannot be told after that).
 */
export async function cycleMigrations(
  options: MigratorOptions,
): Promise<{ first: string[]; none: string[]; second: string[]; notUndone: string | undefined }> {
  const fingerprint = (): Promise<string[]> => schemaFingerprint(options.url, options.schema);
  const steps: { migrationName: string; before: string[] }[] = [];
  for (const { migrationName } of ordered(options.migrations)) {
    steps.push({ migrationName, before: await fingerprint() });
    await migrate({ ...options, to: migrationName });
  }
  const first = await fingerprint();
  let notUndone: string | undefined;
  for (const { migrationName, before } of steps.toReversed()) {
    await revert(options);
    if (notUndone === undefined && !isDeepStrictEqual(await fingerprint(), before)) notUndone = migrationName;
  }
  const none = await fingerprint();
  await migrate(options);
  return { first, none, second: await fingerprint(), notUndone };
}
