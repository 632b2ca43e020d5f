import { createHash } from 'node:crypto';
import type pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { ArchiveError } from './archive-error.ts';
import type { ArchiveManifest, TableTotals } from './archive-format.ts';
import type { ArchiveReader } from './archive-reader.ts';
import { copyOut, copyTarget, prepareSession, qualified } from './snapshot.ts';

/** What fills the tables: an archive, or another database. */
export type RowsToLoad = Pick<ArchiveReader, 'plan' | 'table' | 'finish'>;

export interface LoadOptions {
  /** Owns the tables. */
  role: string;
  /** What is brought to order before the commit. */
  settle?: (client: pg.ClientBase) => Promise<void>;
  signal: AbortSignal;
  onProgress: (rawBytes: number) => void;
}

/**
 * Fills the tables of a database that nobody uses with an archive's rows, in one transaction: all of them, or none when
 * the archive turns out to be damaged at its last byte. Then writes every table out again and compares it with what was
 * archived.
 */
export async function loadArchive(
  client: pg.ClientBase,
  reader: RowsToLoad,
  { role, signal, onProgress, settle }: LoadOptions,
): Promise<ArchiveManifest> {
  const { tables } = reader.plan;
  await prepareSession(client, role);
  await client.query('BEGIN');
  await client.query('SET CONSTRAINTS ALL DEFERRED');
  for (const table of tables) await client.query(`ALTER TABLE ${qualified(table)} DISABLE TRIGGER USER`);
  // What migrations put in is in the archive as well. Also: rows of a table that was emptied in the same transaction are
  // laid down one after the other, so that they are read in the archive's order again, and need no later clean-up.
  if (tables.length > 0) await client.query(`TRUNCATE ${tables.map(qualified).join(', ')} CASCADE`);
  for (const table of tables) {
    const into = client.query(copyFrom(`COPY ${copyTarget(table)} FROM STDIN WITH (FREEZE)`));
    const { rows } = await reader.table(into, { signal, onProgress });
    if (into.rowCount !== rows) throw mismatch(table.name, `${into.rowCount} rows instead of ${rows}`);
  }
  const manifest = await reader.finish();
  for (const table of manifest.tables) await compare(client, table, signal);
  for (const { schema, name, last_value: value, is_called: called } of manifest.sequences) {
    await client.query('SELECT setval($1::regclass, $2, $3)', [qualified({ schema, name }), value, called]);
  }
  for (const table of tables) await client.query(`ALTER TABLE ${qualified(table)} ENABLE TRIGGER USER`);
  await settle?.(client);
  await client.query('COMMIT');
  for (const table of tables) await client.query(`ANALYZE ${qualified(table)}`);
  return manifest;
}

/** Throws ARCHIVE_MISMATCH when the table is not what was archived, to the byte. */
export async function compare(
  client: pg.ClientBase,
  archived: ArchiveManifest['tables'][number] & TableTotals,
  signal: AbortSignal,
): Promise<void> {
  const content = createHash('sha256');
  const rows = copyOut(client, archived);
  for await (const chunk of rows as AsyncIterable<Buffer>) {
    signal.throwIfAborted();
    content.update(chunk);
  }
  if (rows.rowCount !== archived.rows) throw mismatch(archived.name, `${rows.rowCount} rows of ${archived.rows}`);
  if (content.digest('hex') !== archived.content_sha256) throw mismatch(archived.name, 'other rows than were archived');
}

function mismatch(table: string, what: string): ArchiveError {
  return new ArchiveError('ARCHIVE_MISMATCH', `${table} has ${what}`);
}
