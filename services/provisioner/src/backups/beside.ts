import { Writable } from 'node:stream';
import pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { BESIDE_SCHEMA, besideName, copyName, schemaOwner } from '../domain/names.ts';
import type { StepName } from '../domain/plan.ts';
import { noteResult } from '../operations/lease.ts';
import type { Step } from '../provisioning/steps.ts';
import * as server from '../servers/tenant-database.ts';
import { ArchiveError } from './archive-error.ts';
import type { PlannedTable } from './archive-format.ts';
import type { ArchiveReader } from './archive-reader.ts';
import { findBackup } from './backup-rows.ts';
import { compare } from './load.ts';
import { copyTarget, prepareSession, qualified } from './snapshot.ts';
import { reading, tried, type BackupParams } from './steps.ts';
import { watched } from './watched.ts';

const id = pg.escapeIdentifier;

/** The step that brings one table of an archive back, in a schema of its own. May be begun anew after any crash. */
export const BESIDE_STEPS = {
  async lay_beside(context, client, { tenant, server: place }, held, stop) {
    const { database, connections } = context;
    const { backup_id: backupId, table: wanted = '' } = held.params as unknown as BackupParams;
    const { schema, operationId } = held;
    const name = tenant.database_name;
    const role = schemaOwner(schema);
    const { raw_bytes: total } = await findBackup(database, backupId);
    const types = await connections.as(place, connections.adminLogin(place, copyName(schema, operationId)), (inside) =>
      columnTypes(inside, schema),
    );
    await connections.as(place, connections.adminLogin(place, name), (inside) =>
      inside.query(`CREATE SCHEMA IF NOT EXISTS ${id(BESIDE_SCHEMA)} AUTHORIZATION ${id(role)}`),
    );
    const login = await connections.migratorLogin(place, name);
    const laid = await tried(context, held, stop, () =>
      server.whileConnectable(client, name, login.user, () =>
        watched(database, held, stop, (progress, signal) =>
          reading(context, held, signal, (reader) =>
            connections.as(place, login, async (inside) => {
              await prepareSession(inside, role);
              return layBeside(inside, reader, {
                targetOf: (table) => {
                  if (table.name !== wanted && table.partition_of !== wanted) return undefined;
                  return { ...table, schema: BESIDE_SCHEMA, name: besideName(table.name, operationId) };
                },
                types,
                signal,
                onProgress: (done) => Object.assign(progress, { done, total }),
              });
            }),
          ),
        ),
      ),
    );
    await database.asSystem((tx) => noteResult(tx, held, { backup_id: backupId, database: name, tables: laid }));
  },
} satisfies Partial<Record<StepName, Step>>;

/** Of which type each column is, as SQL, by `table.column`. */
async function columnTypes(client: pg.ClientBase, schema: string): Promise<Map<string, string>> {
  await client.query('SET search_path = pg_catalog');
  const { rows } = await client.query<{ name: string; type: string }>(
    `SELECT c.relname || '.' || a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
     FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped`,
    [schema],
  );
  return new Map(rows.map(({ name, type }) => [name, type]));
}

interface LayOptions {
  /** Where a table goes; undefined where it is not wanted. */
  targetOf: (table: PlannedTable) => PlannedTable | undefined;
  types: ReadonlyMap<string, string>;
  signal: AbortSignal;
  onProgress: (rawBytes: number) => void;
}

/**
 * Lays the wanted tables of an archive into new tables without rules or keys, and writes them out again to compare them
 * with what was archived: all of it in one transaction, which ends well only when the whole archive was read.
 */
async function layBeside(
  client: pg.ClientBase,
  reader: ArchiveReader,
  { targetOf, types, signal, onProgress }: LayOptions,
): Promise<{ name: string; rows: number; content_sha256: string }[]> {
  await client.query('BEGIN');
  for (const table of reader.plan.tables) {
    const target = targetOf(table);
    if (target === undefined) {
      await reader.table(new Writable({ write: (_chunk, _encoding, done) => done() }), { signal, onProgress });
      continue;
    }
    const columns: string[] = [];
    for (const column of table.columns) {
      const type = types.get(`${table.name}.${column}`);
      // A type that later migrations took away: the text can still be read.
      const { rows } = await client.query<{ known: boolean }>('SELECT to_regtype($1) IS NOT NULL AS known', [type]);
      columns.push(`${id(column)} ${type !== undefined && rows[0]!.known ? type : 'text'}`);
    }
    await client.query(`DROP TABLE IF EXISTS ${qualified(target)}`);
    await client.query(`CREATE TABLE ${qualified(target)} (${columns.join(', ')})`);
    const into = client.query(copyFrom(`COPY ${copyTarget(target)} FROM STDIN WITH (FREEZE)`));
    await reader.table(into, { signal, onProgress });
  }
  const manifest = await reader.finish();
  const laid = [];
  for (const table of manifest.tables) {
    const target = targetOf(table);
    if (target === undefined) continue;
    await compare(client, { ...table, schema: target.schema, name: target.name }, signal);
    laid.push({ name: `${target.schema}.${target.name}`, rows: table.rows, content_sha256: table.content_sha256 });
  }
  if (laid.length === 0) throw new ArchiveError('ARCHIVE_MISMATCH', 'the archive holds no such table');
  await client.query('COMMIT');
  return laid;
}
