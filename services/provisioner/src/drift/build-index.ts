import { createHash } from 'node:crypto';
import { MINUTE_MS, SECOND_MS } from '@mad/process';
import pg from 'pg';
import type { TenantIndexRow } from '../db/entities/tenant-index.ts';
import { parseIndex } from '../domain/index-definition.ts';

const id = pg.escapeIdentifier;
const text = pg.escapeLiteral;
/** It waits for every transaction that is older: nobody waits for it meanwhile. */
const BUILD_WAIT_MS = 10 * MINUTE_MS;
/** Here others would wait behind it. */
const LOCK_WAIT_MS = 5 * SECOND_MS;
const TERMINATE_MS = 5 * SECOND_MS;
/** What a session that builds or drops indexes is called, by which another finds it. */
const APPLICATION = 'mad-provisioner-indexes';

interface Plain {
  unique: boolean;
  /** With the schema, quoted. */
  name: string;
  bareName: string;
  table: string;
  rest: string;
}

/**
 * Builds an index while others write, given its definition as `pg_get_indexdef` says it; `inside` is the owner's
 * session, outside a transaction. One that is there and valid is left alone, one that a crash left invalid is made again.
 * On a partitioned table each partition gets its own beside the writers, and the table's is put together from them.
 */
export async function buildIndex(inside: pg.ClientBase, schema: string, definition: string): Promise<void> {
  const { unique, name: bareName, partitioned, table, rest } = parseIndex(definition);
  const plain: Plain = { unique, bareName, name: `${id(schema)}.${bareName}`, table, rest };
  if (!partitioned) return build(inside, plain);
  await wait(inside, LOCK_WAIT_MS);
  const made = unique ? 'CREATE UNIQUE INDEX' : 'CREATE INDEX';
  if ((await stateOf(inside, plain.name)) === 'none') {
    await inside.query(`${made} ${bareName} ON ONLY ${table} ${rest}`);
  }
  for (const { oid, partition } of await partitionsWithout(inside, plain)) {
    const own = ownName(bareName, oid);
    await build(inside, { ...plain, table: partition, bareName: own, name: `${id(schema)}.${own}` });
    await wait(inside, LOCK_WAIT_MS);
    await inside.query(`ALTER INDEX ${plain.name} ATTACH PARTITION ${id(schema)}.${own}`);
  }
}

/** Runs what may take hours; ends it on the server as well when the signal aborts. */
export async function untilGivenUp<T>(inside: pg.Client, signal: AbortSignal, fn: () => Promise<T>): Promise<T> {
  // Without it the server goes on with a statement that nobody waits for.
  await inside.query(`SET client_connection_check_interval = '1s'; SET application_name = '${APPLICATION}'`);
  signal.throwIfAborted();
  const giveUp = (): void => void inside.end();
  signal.addEventListener('abort', giveUp);
  try {
    return await fn();
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}

/**
 * Ends the session of a run that was given up or died: what it is at may go on until the server misses its client.
 * `client`: the provisioner's connection to the server.
 */
export async function endGivenUp(client: pg.ClientBase, database: string): Promise<void> {
  await client.query(
    `SELECT pg_terminate_backend(pid, $3) FROM pg_stat_activity
     WHERE application_name = $1 AND datname = $2 AND usename = current_user`,
    [APPLICATION, database, TERMINATE_MS],
  );
}

/**
 * Drops an index while others read and write, and all that an unfinished build of it left on partitions; nothing when there
 * is none. `waitMs`: how long to wait for transactions that are older.
 */
export async function dropIndex(
  inside: pg.ClientBase,
  schema: string,
  { table_name: table, name }: Pick<TenantIndexRow, 'table_name' | 'name'>,
  waitMs = BUILD_WAIT_MS,
): Promise<void> {
  await dropOne(inside, `${id(schema)}.${id(name)}`, waitMs);
  const { rows } = await inside.query<{ oid: string }>(
    'SELECT inhrelid::text AS oid FROM pg_inherits WHERE inhparent = to_regclass($1) ORDER BY 1',
    [`${id(schema)}.${id(table)}`],
  );
  // Those that were attached are gone with it.
  for (const { oid } of rows) await dropOne(inside, `${id(schema)}.${ownName(name, oid)}`, waitMs);
}

async function dropOne(inside: pg.ClientBase, name: string, waitMs: number): Promise<void> {
  const { rows } = await inside.query<{ kind: string }>(
    'SELECT relkind AS kind FROM pg_class WHERE oid = to_regclass($1)',
    [name],
  );
  if (rows.length === 0) return;
  // The index of a partitioned table goes at once or not at all.
  const partitioned = rows[0]!.kind === 'I';
  await wait(inside, partitioned ? LOCK_WAIT_MS : waitMs);
  await inside.query(`DROP INDEX ${partitioned ? '' : 'CONCURRENTLY'} ${name}`);
}

/** What the catalog says of an index; undefined when there is none. */
export async function indexDefinition(
  inside: pg.ClientBase,
  schema: string,
  bareName: string,
): Promise<{ definition: string; valid: boolean } | undefined> {
  const { rows } = await inside.query<{ definition: string; valid: boolean }>(
    `SELECT pg_get_indexdef(indexrelid) AS definition, indisvalid AS valid FROM pg_index WHERE indexrelid = to_regclass($1)`,
    [`${id(schema)}.${id(bareName)}`],
  );
  return rows[0];
}

async function build(inside: pg.ClientBase, { unique, name, bareName, table, rest }: Plain): Promise<void> {
  const state = await stateOf(inside, name);
  if (state === 'valid') return;
  await wait(inside, BUILD_WAIT_MS);
  if (state === 'invalid') await inside.query(`DROP INDEX CONCURRENTLY ${name}`);
  try {
    await inside.query(`CREATE ${unique ? 'UNIQUE ' : ''}INDEX CONCURRENTLY ${bareName} ON ${table} ${rest}`);
  } catch (error) {
    // What is left of it would be kept up to date by every write, and used by no read. Where the session was given up,
    // another one drops it.
    await inside.query(`DROP INDEX CONCURRENTLY IF EXISTS ${name}`).catch(() => undefined);
    throw error;
  }
}

async function stateOf(inside: pg.ClientBase, name: string): Promise<'none' | 'valid' | 'invalid'> {
  const { rows } = await inside.query<{ valid: boolean }>(
    'SELECT indisvalid AS valid FROM pg_index WHERE indexrelid = to_regclass($1)',
    [name],
  );
  return rows[0] === undefined ? 'none' : rows[0].valid ? 'valid' : 'invalid';
}

async function partitionsWithout(
  inside: pg.ClientBase,
  { table, name }: Plain,
): Promise<{ oid: string; partition: string }[]> {
  const { rows } = await inside.query<{ oid: string; partition: string }>(
    `SELECT h.inhrelid::text AS oid, h.inhrelid::regclass::text AS partition FROM pg_inherits h
     WHERE h.inhparent = ${text(table)}::regclass AND NOT EXISTS (
       SELECT FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid
       WHERE i.inhparent = ${text(name)}::regclass AND x.indrelid = h.inhrelid)
     ORDER BY 1`,
  );
  return rows;
}

/** The same after a crash, so that what it left is found. */
function ownName(bareName: string, partition: string): string {
  return `part_${createHash('sha256').update(`${bareName} ${partition}`).digest('hex').slice(0, 16)}`;
}

function wait(inside: pg.ClientBase, ms: number): Promise<unknown> {
  return inside.query(`SET lock_timeout = ${ms}`);
}
