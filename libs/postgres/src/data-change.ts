import { sleep } from '@mad/process';
import pg from 'pg';
import type { DataSource, QueryRunner } from 'typeorm';
import { defineMigration, type MigrationClass } from './migration.ts';

const id = pg.escapeIdentifier;

/** A change of rows that is too much for one transaction. */
export interface DataChange {
  schema: string;
  table: string;
  /** A column that is unique and not null, and has an index: rows are gone through in its order. */
  key: string;
  /** Which rows are still to be changed: SQL over the row `t`. It is no longer true of one that was changed. */
  pending: string;
  /** SQL that changes the rows whose keys are in the array `$1`, and no others. */
  change: string;
  /** Rows in one transaction, at most: 1,000. */
  batch?: number;
  /** Rest between two batches, in milliseconds: 10. */
  restMs?: number;
}

/** How far a change of rows is. */
export interface DataChangeProgress {
  migration: string;
  /** Rows changed so far, and those there were to be when it began. */
  changed: number;
  total: number;
  /** The key of the last row that was gone through; empty at the beginning. */
  cursor: string;
}

/** The time for a change of rows is up: what is committed stays, and the next call goes on behind it. */
export class DataChangeUnfinished extends Error {
  override readonly name = 'DataChangeUnfinished';
  readonly progress: DataChangeProgress;

  constructor(progress: DataChangeProgress) {
    super(`${progress.migration} is at ${progress.changed} of ${progress.total} rows`);
    this.progress = progress;
  }
}

const BATCH = 1_000;
const REST_MS = 10;
/** Rows may come behind the cursor while it goes on; but those that come back again and again are not being changed. */
const MAX_PASSES = 5;

/** Until when migrators of these sources may change rows, by the clock of `performance`. */
const deadlines = new WeakMap<DataSource, number>();

/** Lets changes of rows by this source end with DataChangeUnfinished after a time. At least one batch is done. */
export function limitDataChanges(source: DataSource, budgetMs: number): void {
  deadlines.set(source, performance.now() + budgetMs);
}

/** Where each change of rows stands; no part of the schema's version, like the record of migrations. */
const record = (schema: string): string => `${id(schema)}.data_changes`;

/**
 * A migration that changes rows, in batches with a transaction each. Where it stands is kept in the same transactions, so
 * that whoever goes on after a crash leaves no row out and changes none twice. The schema has the version only when no row
 * is left. The way back leaves rows as they are: what they need is dropped by the migration before it.
 */
export function defineDataChange(fileName: string, change: DataChange): MigrationClass {
  const { schema, table, key, pending, batch = BATCH } = change;
  const up = `-- ${batch} rows at a time, by ${schema}.${table}.${key}, of those where ${pending}\n${change.change}`;
  const Base = defineMigration(fileName, { up, down: 'SELECT', transaction: false, data: change });
  return class extends Base {
    override async up(runner: QueryRunner): Promise<void> {
      await changeRows(runner, Base.migrationName, change);
    }

    override async down(runner: QueryRunner): Promise<void> {
      await runner.query(`DELETE FROM ${record(schema)} WHERE migration = $1`, [Base.migrationName]);
    }
  };
}

/** How many rows are still to be changed. */
export async function countPending(runner: QueryRunner, { schema, table, pending }: DataChange): Promise<number> {
  const rows = (await runner.query(
    `SELECT count(*)::int AS count FROM ${id(schema)}.${id(table)} t WHERE ${pending}`,
  )) as { count: number }[];
  return rows[0]!.count;
}

interface Standing {
  cursor: string | null;
  changed: number;
  total: number;
  passes: number;
}

async function changeRows(runner: QueryRunner, migration: string, change: DataChange): Promise<void> {
  const { schema, restMs = REST_MS } = change;
  const deadline = deadlines.get(runner.dataSource);
  await runner.query(
    `CREATE TABLE IF NOT EXISTS ${record(schema)} (
       migration text PRIMARY KEY, cursor text, changed bigint NOT NULL DEFAULT 0, total bigint NOT NULL,
       passes integer NOT NULL DEFAULT 0, updated_at timestamptz NOT NULL DEFAULT now())`,
  );
  const known = (await runner.query(`SELECT FROM ${record(schema)} WHERE migration = $1`, [migration])) as unknown[];
  if (known.length === 0) {
    const total = await countPending(runner, change);
    await runner.query(`INSERT INTO ${record(schema)} (migration, total) VALUES ($1, $2)`, [migration, total]);
  }
  for (;;) {
    const standing = await oneBatch(runner, migration, change);
    if (standing === undefined) return;
    const { cursor, changed, total } = standing;
    if (deadline !== undefined && performance.now() >= deadline) {
      throw new DataChangeUnfinished({ migration, changed, total: Math.max(changed, total), cursor: cursor ?? '' });
    }
    await sleep(restMs);
  }
}

/** Changes the next rows. Answers where it stands then; undefined when, from the beginning, no row was left. */
async function oneBatch(runner: QueryRunner, migration: string, change: DataChange): Promise<Standing | undefined> {
  const { schema, table, key, pending, batch = BATCH } = change;
  let cursor: string | null = null;
  await runner.query('BEGIN');
  try {
    const [before] = (await runner.query(
      `SELECT cursor, changed::int, total::int, passes FROM ${record(schema)} WHERE migration = $1 FOR UPDATE`,
      [migration],
    )) as [Standing];
    cursor = before.cursor;
    const rows = (await runner.query(
      `SELECT t.${id(key)}::text AS key FROM ${id(schema)}.${id(table)} t
       WHERE ${cursor === null ? '' : `t.${id(key)} > $1 AND`} (${pending}) ORDER BY t.${id(key)} LIMIT ${batch} FOR UPDATE`,
      cursor === null ? [] : [cursor],
    )) as { key: string }[];
    if (rows.length > 0) await runner.query(change.change, [rows.map((row) => row.key)]);
    const after: Standing = {
      ...before,
      cursor: rows.at(-1)?.key ?? null,
      changed: before.changed + rows.length,
      passes: before.passes + (rows.length === 0 ? 1 : 0),
    };
    if (rows.length === 0 && cursor !== null && after.passes >= MAX_PASSES) {
      throw new Error(`rows are left after ${MAX_PASSES} passes: the change does not change them`);
    }
    await runner.query(
      `UPDATE ${record(schema)} SET cursor = $2, changed = $3, passes = $4, updated_at = now() WHERE migration = $1`,
      [migration, after.cursor, after.changed, after.passes],
    );
    await runner.query('COMMIT');
    return rows.length === 0 && cursor === null ? undefined : after;
  } catch (error) {
    await runner.query('ROLLBACK').catch(() => undefined);
    const place = cursor === null ? 'at the beginning' : `after ${key} ${cursor}`;
    (error as Error).message = `${schema}.${table} ${place}: ${(error as Error).message}`;
    throw error;
  }
}
