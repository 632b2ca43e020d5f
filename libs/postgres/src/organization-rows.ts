import { pipeline } from 'node:stream/promises';
import pg from 'pg';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import { ownerRole } from './roles.ts';

const id = pg.escapeIdentifier;

/** A table that holds rows of organizations, as its owner lets them be brought back from an archive. */
export interface OrganizationTable {
  name: string;
  key: readonly string[];
  /** Which rows are the organization's: SQL over the row `t`, where `$org` is its id. */
  whose: string;
  /**
   * What may happen to rows that are there. `equal`: on request they become what the archive has, and those it does not
   * have go. `missing`: only missing ones come; rows that are there, however they differ, are later knowledge.
   */
  rule: 'equal' | 'missing';
  /** Rows the archive does not have, but something needs that stays: SQL over the row `t`. They stay as well. */
  needed?: string;
}

/** How an organization's rows of one table stand against an archive's. */
export interface TableDifference {
  table: string;
  rule: OrganizationTable['rule'];
  /** In the archive. */
  archived: number;
  /** In the archive only. */
  missing: number;
  /** In both, with other content. */
  different: number;
  /** In the database only: newer than the archive, or removed before it. */
  extra: number;
}

/** One owner's tables, each after those it refers to. */
export interface OwnedRows {
  schema: string;
  tables: readonly OrganizationTable[];
}

export type PutBack = 'missing-only' | 'replace';

interface Named extends OwnedRows {
  orgId: string;
}

const target = (schema: string, { name }: OrganizationTable): string => `${id(schema)}.${id(name)}`;
const staged = ({ name }: OrganizationTable): string => `pg_temp.${id(`archived_${name}`)}`;
const whose = ({ whose: condition }: OrganizationTable, orgId: string): string =>
  `(${condition.replaceAll('$org', `${pg.escapeLiteral(orgId)}::uuid`)})`;
const sameKey = ({ key }: OrganizationTable): string =>
  key.map((column) => `a.${id(column)} = t.${id(column)}`).join(' AND ');
const listed = (columns: readonly string[], row = ''): string => columns.map((one) => `${row}${id(one)}`).join(', ');

/**
 * Lays an organization's rows of a restored archive beside the owner's tables, in temporary ones of the transaction that is
 * open on `live`, which the owner's role may read. Both connections are a superuser's. Throws when a table has other
 * columns there.
 */
export async function stageOrganizationRows(
  live: pg.ClientBase,
  archive: pg.ClientBase,
  { schema, tables, orgId }: Named,
): Promise<void> {
  for (const table of tables) {
    const columns = await columnsOf(live, schema, table);
    if (listed(await columnsOf(archive, schema, table)) !== listed(columns)) {
      throw new Error(`${schema}.${table.name} is of another version in the metadata database: run mad db migrate`);
    }
    await live.query(
      `CREATE TEMPORARY TABLE ${id(`archived_${table.name}`)} ON COMMIT DROP AS
       SELECT * FROM ${target(schema, table)} WITH NO DATA`,
    );
    const rows = `SELECT ${listed(columns, 't.')} FROM ${target(schema, table)} t WHERE ${whose(table, orgId)}`;
    await pipeline(
      archive.query(copyTo(`COPY (${rows}) TO STDOUT`)),
      live.query(copyFrom(`COPY ${staged(table)} (${listed(columns)}) FROM STDIN`)),
    );
    await live.query(`ANALYZE ${staged(table)}; GRANT SELECT ON ${staged(table)} TO ${id(ownerRole(schema))}`);
  }
}

/** Counts how the organization's rows stand against those that were laid beside them. */
export async function compareOrganizationRows(
  live: pg.ClientBase,
  { schema, tables, orgId }: Named,
): Promise<TableDifference[]> {
  const found: TableDifference[] = [];
  for (const table of tables) {
    const columns = await columnsOf(live, schema, table);
    const there = target(schema, table);
    const { rows } = await live.query<Record<'archived' | 'missing' | 'different' | 'extra', number>>(
      `SELECT (SELECT count(*)::int FROM ${staged(table)}) AS archived,
         (SELECT count(*)::int FROM ${staged(table)} a
           WHERE NOT EXISTS (SELECT FROM ${there} t WHERE ${sameKey(table)})) AS missing,
         (SELECT count(*)::int FROM ${staged(table)} a JOIN ${there} t ON ${sameKey(table)}
           WHERE (${listed(columns, 'a.')}) IS DISTINCT FROM (${listed(columns, 't.')})) AS different,
         (SELECT count(*)::int FROM ${there} t WHERE ${whose(table, orgId)}
           AND NOT EXISTS (SELECT FROM ${staged(table)} a WHERE ${sameKey(table)})) AS extra`,
    );
    found.push({ table: `${schema}.${table.name}`, rule: table.rule, ...rows[0]! });
  }
  return found;
}

/**
 * Puts back what is missing and, with `replace`, makes the rows of tables whose rule is `equal` the archive's; in the
 * transaction that is open on `live`, as the tables' owner. The owner's triggers rest meanwhile: they guard what logins do.
 * Returns how it stood before. Throws an error that names the table when a rule of the database stands against it, or
 * when afterwards it is not as was asked.
 */
export async function putBackOrganizationRows(
  live: pg.ClientBase,
  owned: Named,
  mode: PutBack,
): Promise<TableDifference[]> {
  const { schema, tables, orgId } = owned;
  const before = await compareOrganizationRows(live, owned);
  const replaced = ({ rule }: OrganizationTable): boolean => mode === 'replace' && rule === 'equal';
  const touched = tables.filter((table, index) => {
    const { missing, different, extra } = before[index]!;
    return missing > 0 || (replaced(table) && different + extra > 0);
  });
  for (const table of touched) await live.query(`ALTER TABLE ${target(schema, table)} DISABLE TRIGGER USER`);
  for (const table of touched.filter(replaced).reverse()) {
    const kept = table.needed === undefined ? '' : ` AND NOT (${table.needed})`;
    await guarded(schema, table, () =>
      live.query(
        `DELETE FROM ${target(schema, table)} t WHERE ${whose(table, orgId)}${kept}
           AND NOT EXISTS (SELECT FROM ${staged(table)} a WHERE ${sameKey(table)})`,
      ),
    );
  }
  for (const table of touched) {
    const columns = listed(await columnsOf(live, schema, table));
    await guarded(schema, table, () =>
      live.query(
        `INSERT INTO ${target(schema, table)} (${columns}) SELECT ${columns} FROM ${staged(table)} a
         WHERE NOT EXISTS (SELECT FROM ${target(schema, table)} t WHERE ${sameKey(table)})`,
      ),
    );
    if (replaced(table)) await update(live, owned, table);
  }
  for (const table of touched) await live.query(`ALTER TABLE ${target(schema, table)} ENABLE TRIGGER USER`);
  for (const [index, { missing, different }] of (await compareOrganizationRows(live, owned)).entries()) {
    const table = tables[index]!;
    if (missing > 0 || (replaced(table) && different > 0)) {
      throw new Error(`${schema}.${table.name} is not as it was archived: ${missing} missing, ${different} different`);
    }
  }
  return before;
}

async function update(live: pg.ClientBase, { schema, orgId }: Named, table: OrganizationTable): Promise<void> {
  const columns = (await columnsOf(live, schema, table)).filter((one) => !table.key.includes(one));
  if (columns.length === 0) return;
  await guarded(schema, table, () =>
    live.query(
      `UPDATE ${target(schema, table)} t SET (${listed(columns)}) = ROW (${listed(columns, 'a.')}) FROM ${staged(table)} a
       WHERE ${sameKey(table)} AND ${whose(table, orgId)}
         AND (${listed(columns, 'a.')}) IS DISTINCT FROM (${listed(columns, 't.')})`,
    ),
  );
}

async function columnsOf(client: pg.ClientBase, schema: string, table: OrganizationTable): Promise<string[]> {
  const { rows } = await client.query<{ attname: string }>(
    `SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum`,
    [target(schema, table)],
  );
  return rows.map(({ attname }) => attname);
}

/** Integrity violations name the row's table and what stands against it. */
async function guarded(schema: string, { name }: OrganizationTable, run: () => Promise<unknown>): Promise<void> {
  try {
    await run();
  } catch (error) {
    const { code = '', detail = '', constraint = '' } = error as Partial<pg.DatabaseError>;
    if (!code.startsWith('23')) throw error;
    throw new Error(`${schema}.${name} cannot be brought back: ${constraint}: ${detail}`, { cause: error });
  }
}
