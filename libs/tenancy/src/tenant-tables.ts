import { clientOptions, withClient } from '@mad/postgres';
import { SECOND_MS } from '@mad/process';
import pg from 'pg';

/** One table that holds rows. */
export interface TenantTable {
  name: string;
  columns: string[];
  /** Of which table it is a partition; empty for a plain one. */
  partitionOf: string;
  /** Which rows the partition takes, as SQL. */
  bound: string;
  /** What it takes on disk, without indexes, in bytes. */
  sizeBytes: number;
}

interface Found extends Omit<TenantTable, 'sizeBytes'> {
  size_bytes: string;
  /** Itself and what it is a partition of: what others refer to. */
  known_as: string[];
  refers_to: string[];
  nested: boolean;
}

/**
 * Read from the catalog alone. The record of migrations is not data: whoever restores migrates first. Generated columns
 * are computed again.
 */
const TABLES_SQL = `
  SELECT c.relname AS name, coalesce(p.relname, '') AS "partitionOf", coalesce(p.relispartition, false) AS nested,
    coalesce(pg_get_expr(c.relpartbound, c.oid), '') AS bound, pg_table_size(c.oid)::text AS size_bytes,
    array(SELECT a.attname::text FROM pg_attribute a
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum) AS columns,
    array_remove(ARRAY[c.relname::text, p.relname::text], NULL) AS known_as,
    array(SELECT DISTINCT r.relname::text FROM pg_constraint k JOIN pg_class r ON r.oid = k.confrelid
      WHERE k.conrelid = c.oid AND k.contype = 'f' AND r.oid <> c.oid) AS refers_to
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND c.relispartition LEFT JOIN pg_class p ON p.oid = i.inhparent
  WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relpersistence <> 't' AND c.relname NOT IN ('migrations', 'data_changes')
  ORDER BY c.relname`;

const SEQUENCES_SQL = `
  SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = $1 AND c.relkind = 'S' AND c.relname <> 'migrations_id_seq' ORDER BY c.relname`;

/** The size of a table that somebody holds cannot be asked for. */
const LOCK_TIMEOUT_MS = 30 * SECOND_MS;

const id = pg.escapeIdentifier;

async function asOwner<T>(url: string, role: string, fn: (client: pg.Client) => Promise<T>): Promise<T> {
  const options = `-c role=${role} -c lock_timeout=${LOCK_TIMEOUT_MS}`;
  return withClient({ ...clientOptions(url), options, application_name: 'mad-tables' }, fn);
}

/**
 * Orders tables so that each comes after those it refers to, by name where that leaves a choice. Where they refer to
 * each other in a circle, as far as it goes: their constraints must be deferrable.
 */
export function inDependencyOrder<T extends { name: string; known_as: string[]; refers_to: string[] }>(
  tables: readonly T[],
): T[] {
  const ordered: T[] = [];
  const left = new Set(tables);
  while (left.size > 0) {
    const missing = new Set([...left].flatMap(({ known_as: names }) => names));
    const free = [...left].filter(
      (one) => !one.refers_to.some((name) => missing.has(name) && !one.known_as.includes(name)),
    );
    const next = free.length > 0 ? free : [[...left][0]!];
    for (const one of next) left.delete(one);
    ordered.push(...next);
  }
  return ordered;
}

/** What holds a schema's data, as seen through `snapshot` (an exported one) or now. */
export async function listTables(
  url: string,
  role: string,
  schema: string,
  snapshot: string,
): Promise<{ tables: TenantTable[]; sequences: string[] }> {
  return asOwner(url, role, async (client) => {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    if (snapshot !== '') await client.query(`SET TRANSACTION SNAPSHOT ${pg.escapeLiteral(snapshot)}`);
    const { rows } = await client.query<Found>(TABLES_SQL, [schema]);
    const sequences = await client.query<{ name: string }>(SEQUENCES_SQL, [schema]);
    await client.query('COMMIT');
    const nested = rows.find((row) => row.nested);
    if (nested !== undefined) throw new Error(`partitions of partitions cannot be listed: ${nested.name}`);
    const tables = inDependencyOrder(rows).map(({ name, columns, partitionOf, bound, size_bytes: size }) => {
      return { name, columns, partitionOf, bound, sizeBytes: Number(size) };
    });
    return { tables, sequences: sequences.rows.map(({ name }) => name) };
  });
}

/** Makes the partitions that are missing, like their parents. All or none. Returns how many there were to make. */
export async function makePartitions(
  url: string,
  role: string,
  schema: string,
  partitions: readonly Pick<TenantTable, 'name' | 'partitionOf' | 'bound'>[],
): Promise<number> {
  return asOwner(url, role, async (client) => {
    let made = 0;
    await client.query('BEGIN');
    for (const { name, partitionOf, bound } of partitions) {
      const [partition, parent] = [name, partitionOf].map((one) => `${id(schema)}.${id(one)}`);
      const { rows } = await client.query<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', [
        partition,
      ]);
      if (rows[0]!.there) continue;
      await client.query(`CREATE TABLE ${partition} (LIKE ${parent} INCLUDING ALL)`);
      await client.query(`ALTER TABLE ${parent} ATTACH PARTITION ${partition} ${bound}`);
      made += 1;
    }
    await client.query('COMMIT');
    return made;
  });
}
