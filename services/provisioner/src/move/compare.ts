import type { ListTablesResponse } from '@mad/proto/tenancy';
import pg from 'pg';
import { qualified, sequenceValues } from '../backups/snapshot.ts';

/** What a table holds, whatever the order on the disk. */
interface Content {
  rows: string;
  sum: string;
}

const id = pg.escapeIdentifier;

/** Sequences send nothing: the copy gets the values they have now. */
export async function copySequences(
  source: pg.ClientBase,
  target: pg.ClientBase,
  schema: string,
  sequences: readonly string[],
): Promise<void> {
  for (const { name, last_value: value, is_called: called } of await sequenceValues(source, schema, sequences)) {
    await target.query('SELECT setval($1::regclass, $2, $3)', [qualified({ schema, name }), value, called]);
  }
}

/** Compares every table by its number of rows and the sum of their checksums. Throws naming the first that differs. */
export async function compareTables(
  source: pg.ClientBase,
  target: pg.ClientBase,
  schema: string,
  { tables }: ListTablesResponse,
): Promise<{ rows: number }> {
  let rows = 0;
  for (const { name, columns } of tables) {
    const [from, to] = await Promise.all([source, target].map((inside) => contentOf(inside, schema, name, columns)));
    if (from!.rows !== to!.rows) throw new Error(`${name} has ${to!.rows} rows of ${from!.rows}`);
    if (from!.sum !== to!.sum) throw new Error(`${name} has other rows than it had`);
    rows += Number(from!.rows);
  }
  return { rows };
}

/** Half of each row's MD5, added up: rows in another order are the same, a row twice is not. */
async function contentOf(
  inside: pg.ClientBase,
  schema: string,
  name: string,
  columns: readonly string[],
): Promise<Content> {
  const row = columns.length === 0 ? `''` : `ROW(${columns.map((column) => id(column)).join(', ')})::text`;
  const { rows } = await inside.query<Content>(
    `SELECT count(*)::text AS rows, coalesce(sum(('x' || left(md5(${row}), 16))::bit(64)::bigint::numeric), 0)::text AS sum
     FROM ${qualified({ schema, name })}`,
  );
  return rows[0]!;
}
