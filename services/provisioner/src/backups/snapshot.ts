import pg from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import type { ServerRow } from '../db/entities/server.ts';
import type { ListedMigration } from '../domain/names.ts';
import type { SchemaOwner } from '../servers/schema-owners.ts';
import type { Login, ServerConnections } from '../servers/server-connections.ts';
import type { PlannedTable, SequenceValue } from './archive-format.ts';
import type { ArchiveSource, RowStream } from './archive-writer.ts';

const id = pg.escapeIdentifier;

/** A migration that holds a table is waited for so long, then the backup fails and is made another time. */
const LOCK_WAIT = '30s';

/**
 * What COPY's text depends on, so that the same rows are the same bytes everywhere. Scans begin at a table's beginning,
 * whoever else reads it, so that the rows come in their order on the disk.
 */
const settings = (set: 'SET' | 'SET LOCAL'): string =>
  [
    'statement_timeout = 0',
    'idle_in_transaction_session_timeout = 0',
    `lock_timeout = '${LOCK_WAIT}'`,
    `client_encoding = 'UTF8'`,
    `DateStyle = 'ISO'`,
    `IntervalStyle = 'postgres'`,
    `TimeZone = 'UTC'`,
    'extra_float_digits = 1',
    `bytea_output = 'hex'`,
    `xmloption = 'content'`,
    'search_path = pg_catalog',
    'synchronize_seqscans = off',
  ]
    .map((setting) => `${set} ${setting};`)
    .join(' ');

/** The same for a transaction that is open on a connection others use afterwards. */
export const COPY_SETTINGS = settings('SET LOCAL');

/** Makes a connection fit to write tables out and read them back, as the role that owns them. */
export async function prepareSession(client: pg.ClientBase, role: string): Promise<void> {
  await client.query(`SET ROLE ${id(role)}; ${settings('SET')}`);
}

export const qualified = ({ schema, name }: { schema: string; name: string }): string => `${id(schema)}.${id(name)}`;

/** Table and columns as COPY names them. A table without columns has rows too. */
export function copyTarget(table: PlannedTable): string {
  const columns = table.columns.length === 0 ? '' : ` (${table.columns.map(id).join(', ')})`;
  return `${qualified(table)}${columns}`;
}

/** A table's rows as Postgres writes them out. */
export function copyOut(client: pg.ClientBase, table: PlannedTable): RowStream {
  return client.query(copyTo(`COPY ${copyTarget(table)} TO STDOUT`));
}

export interface SnapshotOptions {
  connections: ServerConnections;
  server: ServerRow;
  /** To the database, as a login that may become `role`. */
  login: Login;
  role: string;
  schema: string;
  owner: SchemaOwner;
  generation: number;
  /** Aborting ends the connection, whatever it waits for. */
  signal: AbortSignal;
}

/**
 * Runs `fn` on one moment of a database: every table as it was then, however long reading takes and whoever writes
 * meanwhile. `guess`: about how many bytes there are to read.
 */
export async function withSnapshot<T>(
  options: SnapshotOptions,
  fn: (source: ArchiveSource, guess: number) => Promise<T>,
): Promise<T> {
  const { connections, server, login, role, schema, owner, generation, signal } = options;
  return connections.as(server, login, async (client) => {
    const giveUp = (): void => void client.end();
    signal.addEventListener('abort', giveUp);
    signal.throwIfAborted();
    await prepareSession(client, role);
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    const { rows } = await client.query<{ snapshot: string; at: Date; postgres: string }>(
      `SELECT pg_export_snapshot() AS snapshot, now() AS at, current_setting('server_version') AS postgres`,
    );
    const { snapshot, at, postgres } = rows[0]!;
    const { tables, sequences, version } = await owner.tables(server, login, role, snapshot, signal);
    const plan = {
      snapshot_at: at.toISOString(),
      generation,
      postgres,
      schemas: [{ name: schema, version, migrations: upTo(await owner.migrations(), version), sequences }],
      tables: tables.map(({ name, columns, partitionOf, bound }) => {
        return { schema, name, columns, partition_of: partitionOf, bound };
      }),
    };
    const guess = tables.reduce((sum, { sizeBytes }) => sum + Number(sizeBytes), 0);
    const source: ArchiveSource = {
      plan,
      rows: (table) => copyOut(client, table),
      sequences: () => sequenceValues(client, schema, sequences),
    };
    const answer = await fn(source, guess);
    await client.query('COMMIT');
    signal.removeEventListener('abort', giveUp);
    return answer;
  });
}

function upTo(migrations: readonly ListedMigration[], version: string): ListedMigration[] {
  const last = migrations.findIndex(({ name }) => name === version);
  if (last < 0) throw new Error(`the schema's owner knows no migration ${version}`);
  return migrations.slice(0, last + 1).map(({ name, checksum }) => ({ name, checksum }));
}

/** Sequences know no transactions: these are their values now. */
export async function sequenceValues(
  client: pg.ClientBase,
  schema: string,
  names: readonly string[],
): Promise<SequenceValue[]> {
  const values: SequenceValue[] = [];
  for (const name of names) {
    const { rows } = await client.query<Pick<SequenceValue, 'last_value' | 'is_called'>>(
      `SELECT last_value::text, is_called FROM ${qualified({ schema, name })}`,
    );
    values.push({ schema, name, ...rows[0]! });
  }
  return values;
}
