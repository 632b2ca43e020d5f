import pg from 'pg';

interface KeyColumn {
  table: string;
  column: string;
  type: string;
  alone: boolean;
}

const id = pg.escapeIdentifier;

/** Columns of unique keys of a schema's tables; `alone` where the organization is the whole key (beside a schema's name). */
const KEYS_SQL = `
  SELECT DISTINCT ON (1, 2) c.relname AS table, a.attname AS column, format_type(a.atttypid, NULL) AS type,
    (SELECT bool_or(k.cols <@ ARRAY['org_id', 'schema']::name[]) FROM (
       SELECT array_agg(ka.attname) AS cols FROM pg_index ki JOIN pg_attribute ka ON ka.attrelid = ki.indrelid AND ka.attnum = ANY (ki.indkey)
       WHERE ki.indrelid = c.oid AND ki.indisunique GROUP BY ki.indexrelid) k) AS alone
  FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid AND i.indisunique
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
  WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition`;

/** Values of copy `n` that are unique as their key asks; SQL expressions. */
const UNIQUE: Record<string, (column: string) => string> = {
  uuid: () => 'gen_random_uuid()',
  integer: () => 'n + 1000',
  bigint: () => 'n + 1000',
  text: (column) => `(b.t).${id(column)} || n`,
  citext: (column) => `(b.t).${id(column)} || n`,
  bytea: () => `'\\x' || md5('a' || n) || md5('b' || n)`,
};

/** How tables are filled. */
export interface FillOptions {
  schema: string;
  count: number;
  /** Owns every twentieth copy; the others belong to forty organizations. */
  orgId: string;
  /** SQL expressions of `n` by `table.column`, where a unique value alone would break a rule. */
  values: Readonly<Record<string, string>>;
  /** Tables that stay as they are: they are small in every installation. */
  small: readonly string[];
}

/**
 * Fills a schema's tables with copies of a row that each holds already, and analyzes them. Foreign keys are not checked
 * meanwhile; all other constraints are. Answers the tables that hold no row to copy.
 */
export async function fillTables(client: pg.Client, options: FillOptions): Promise<string[]> {
  const { schema, count, orgId, values, small } = options;
  const { rows: keys } = await client.query<KeyColumn>(KEYS_SQL, [schema]);
  const tables = [...new Set(keys.map(({ table }) => table))].filter((table) => !small.includes(table));
  const empty: string[] = [];
  const failures: string[] = [];
  await client.query('SET session_replication_role = replica');
  for (const table of tables) {
    const name = `${id(schema)}.${id(table)}`;
    const own = keys.filter((key) => key.table === table);
    const shared = `CASE WHEN n % 20 = 0 THEN '${orgId}' ELSE '00000000-0000-7000-8000-' || lpad(to_hex(n % 40), 12, '0') END`;
    const expressions = new Map(
      own.map(({ column, type, alone }) => [
        column,
        column === 'org_id' && !alone ? shared : (UNIQUE[type]?.(column) ?? `(b.t).${id(column)}`),
      ]),
    );
    const { rows: columns } = await client.query<{ attname: string }>(
      `SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''`,
      [name],
    );
    // Rows belong to many, also where the organization is not part of a key.
    if (!expressions.has('org_id') && columns.some(({ attname }) => attname === 'org_id'))
      expressions.set('org_id', shared);
    for (const [key, expression] of Object.entries(values)) {
      const [of, column] = key.split('.') as [string, string];
      if (of === table) expressions.set(column, expression);
    }
    const list = columns.map(({ attname }) => id(attname));
    // A random value is made anew for each copy only where the copy's number is in the same expression.
    const changed = [['#', 'n'], ...expressions].map(([column, expression]) => `'${column}', ${expression}`).join(', ');
    const { rowCount } = await client
      .query(
        `INSERT INTO ${name} (${list.join(', ')}) SELECT ${list.map((column) => `r.${column}`).join(', ')}
       FROM (SELECT t FROM ${name} t LIMIT 1) b, generate_series(1, $1::int) n,
         LATERAL jsonb_populate_record(b.t, jsonb_build_object(${changed})) r`,
        [count],
      )
      .catch((error: Error) => {
        failures.push(`${name}: ${error.message}`);
        return { rowCount: undefined };
      });
    if (rowCount === 0) empty.push(table);
  }
  if (failures.length > 0) throw new Error(`cannot be filled:\n${failures.join('\n')}`);
  await client.query('RESET session_replication_role');
  await client.query('ANALYZE');
  return empty;
}
