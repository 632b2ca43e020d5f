import type { DataSource, EntitySchema } from 'typeorm';
import { openDataSource } from './data-source.ts';
import { createPool } from './pool.ts';

/**
 * What the SQL of the migrations says and entities do not: checks, indexes, keys across tables, comments. TypeORM
 * would drop whatever its entities do not mention.
 */
const OURS_ALONE = [/\bDROP CONSTRAINT\b/, /\bDROP INDEX\b/, /^\s*COMMENT ON\b/];

const DEFAULT_CHANGE = /^ALTER TABLE (\S+) ALTER COLUMN (\S+) (DROP|SET) DEFAULT ?(.*)$/;

/** The defaults as they are, e.g. `"catalog"."notes" "note_id"` → `gen_random_uuid()`. */
async function actualDefaults(dataSource: DataSource, schema: string): Promise<Map<string, string>> {
  const rows = await dataSource.query<{ column: string; value: string }[]>(
    `SELECT format('"%s"."%s" "%s"', n.nspname, c.relname, a.attname) AS "column", pg_get_expr(d.adbin, d.adrelid) AS value
     FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.adnum WHERE n.nspname = $1`,
    [schema],
  );
  return new Map(rows.map(({ column, value }) => [column, value]));
}

/**
 * TypeORM drops and sets again a default of `gen_random_uuid()` that is there already, because it takes the column for
 * one it generates itself. Such pairs change nothing.
 */
function withoutIdleDefaults(queries: readonly string[], actual: ReadonlyMap<string, string>): string[] {
  const parsed = queries.map((query) => DEFAULT_CHANGE.exec(query));
  const idle = new Set(
    parsed
      .filter((match) => match?.[3] === 'SET' && actual.get(`${match[1]} ${match[2]}`) === match[4])
      .map((match) => `${match![1]} ${match![2]}`),
  );
  return queries.filter((_query, index) => {
    const match = parsed[index];
    return !match || !idle.has(`${match[1]} ${match[2]}`);
  });
}

/**
 * The SQL that would bring the schema to what the entities say: tables, columns, types, nullability, defaults. An
 * empty list proves that entities equal migrations; a filled one is the draft of the next migration.
 * `url` is a login that may read the schema (an administrator's).
 */
export async function entityDifferences(options: {
  url: string;
  schema: string;
  entities: readonly EntitySchema[];
}): Promise<string[]> {
  const pool = createPool({ url: options.url, max: 2, applicationName: 'mad-entities' });
  const dataSource = await openDataSource(pool, options);
  try {
    const { upQueries } = await dataSource.driver.createSchemaBuilder().log();
    const queries = upQueries.map(({ query }) => query).filter((sql) => !OURS_ALONE.some((skip) => skip.test(sql)));
    return withoutIdleDefaults(queries, await actualDefaults(dataSource, options.schema));
  } finally {
    await dataSource.destroy();
  }
}
