/** A name with wildcards as two regular expressions; the schema's is null where none was named. */
export interface NamePattern {
  schema: string | null;
  relation: string | null;
}

/** `catalog.j*` → `^(catalog)$`, `^(j.*)$`; names in double quotes are taken as they are. */
export function namePattern(text: string): NamePattern {
  if (text === '') return { schema: null, relation: null };
  const parts = text.match(/("(?:[^"]|"")*"|[^."]+)/g) ?? [];
  const expressions = parts.map((part) => {
    if (part.startsWith('"')) return `^(${escaped(part.slice(1, -1).replaceAll('""', '"'))})$`;
    return `^(${escaped(part.toLowerCase()).replaceAll('\\*', '.*').replaceAll('\\?', '.')})$`;
  });
  const relation = expressions.pop() ?? null;
  return { schema: expressions.pop() ?? null, relation };
}

const escaped = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');

const KIND = `CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
  WHEN 'm' THEN 'materialized view' WHEN 'i' THEN 'index' WHEN 'I' THEN 'partitioned index' WHEN 'S' THEN 'sequence'
  ELSE 'other' END`;

/** $1 and $2: the patterns. Without a schema, what plain names reach; what belongs to the system only by name. */
const FITS = `($2::text IS NULL OR c.relname ~ $2) AND CASE WHEN $1::text IS NULL THEN pg_table_is_visible(c.oid)
    AND n.nspname <> 'pg_catalog' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_toast'
  ELSE n.nspname ~ $1 END`;

const relations = (kinds: string, more = ''): string => `
  SELECT n.nspname AS "Schema", c.relname AS "Name", ${KIND} AS "Type", pg_get_userbyid(c.relowner) AS "Owner"${more}
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_index x ON x.indexrelid = c.oid LEFT JOIN pg_class t ON t.oid = x.indrelid
  WHERE c.relkind IN (${kinds}) AND NOT c.relispartition AND ${FITS} ORDER BY 1, 2`;

/** What each listing asks, by its letters. Partitions are left out: their table stands for them. */
export const LIST_SQL: Readonly<Record<string, string>> = {
  d: relations(`'r', 'p', 'v', 'm', 'S'`),
  dt: relations(`'r', 'p'`),
  dv: relations(`'v', 'm'`),
  di: relations(`'i', 'I'`, ', t.relname AS "Table"'),
  dn: `SELECT n.nspname AS "Name", pg_get_userbyid(n.nspowner) AS "Owner" FROM pg_namespace n
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND ($2::text IS NULL OR n.nspname ~ $2)
      AND $1::text IS NULL ORDER BY 1`,
  dT: `SELECT n.nspname AS "Schema", t.typname AS "Name", coalesce(
      (SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
      format_type(t.typbasetype, t.typtypmod)) AS "Values or base type"
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE t.typtype IN ('e', 'd') AND ($2::text IS NULL OR t.typname ~ $2)
      AND CASE WHEN $1::text IS NULL THEN pg_type_is_visible(t.oid) AND n.nspname NOT IN ('pg_catalog', 'information_schema')
        ELSE n.nspname ~ $1 END ORDER BY 1, 2`,
  du: `SELECT rolname AS "Role", concat_ws(', ', CASE WHEN rolsuper THEN 'superuser' END,
      CASE WHEN NOT rolcanlogin THEN 'cannot login' END, CASE WHEN rolbypassrls THEN 'bypasses row-level security' END,
      CASE WHEN rolcreatedb THEN 'creates databases' END, CASE WHEN rolcreaterole THEN 'creates roles' END) AS "Attributes"
    FROM pg_roles WHERE rolname !~ '^pg_' AND ($2::text IS NULL OR rolname ~ $2) AND $1::text IS NULL ORDER BY 1`,
  l: `SELECT datname AS "Name", pg_get_userbyid(datdba) AS "Owner", pg_size_pretty(pg_database_size(oid)) AS "Size",
      datallowconn AS "Connections" FROM pg_database WHERE ($2::text IS NULL OR datname ~ $2) AND $1::text IS NULL ORDER BY 1`,
};

/** The relations a name fits, as (oid, title). */
export const RELATIONS_SQL = `
  SELECT c.oid, format('%s "%s.%s"%s', initcap(${KIND}), n.nspname, c.relname,
    coalesce(': ' || obj_description(c.oid, 'pg_class'), ''))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'i', 'I', 'S') AND ${FITS} ORDER BY n.nspname, c.relname`;

/** A relation's columns as people read them. */
export const COLUMNS_SQL = `
  SELECT a.attname AS "Column", format_type(a.atttypid, a.atttypmod) AS "Type",
    CASE WHEN a.attnotnull THEN 'not null' ELSE '' END AS "Nullable", pg_get_expr(d.adbin, d.adrelid) AS "Default",
    col_description(a.attrelid, a.attnum) AS "Comment"
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`;

/** What else a relation has, as (heading, line), in the order in which it is shown. */
export const DETAILS_SQL = `
  SELECT heading, line FROM (
    SELECT 1 AS place, 'Indexes' AS heading, format('"%s" %s', i.relname, regexp_replace(pg_get_indexdef(x.indexrelid), '^.* USING ', '')) AS line
      FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = $1
    UNION ALL
    SELECT CASE contype WHEN 'c' THEN 2 WHEN 'f' THEN 3 ELSE 9 END, CASE contype WHEN 'c' THEN 'Checks' ELSE 'Foreign keys' END,
      format('"%s" %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid = $1 AND contype IN ('c', 'f') AND conparentid = 0
    UNION ALL
    SELECT 4, 'Referenced by', format('%s "%s" %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
      FROM pg_constraint WHERE confrelid = $1 AND contype = 'f' AND conparentid = 0
    UNION ALL
    SELECT 5, 'Policies', format('"%s" for %s to %s using %s', p.policyname, lower(p.cmd), array_to_string(p.roles, ', '), p.qual)
      FROM pg_policies p JOIN pg_class c ON c.relname = p.tablename JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = p.schemaname
      WHERE c.oid = $1
    UNION ALL
    SELECT 6, 'Partitions', format('%s %s', i.inhrelid::regclass, pg_get_expr(c.relpartbound, c.oid))
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1
    UNION ALL
    SELECT 7, 'Definition', regexp_replace(pg_get_viewdef(c.oid, true), '\\s+', ' ', 'g') FROM pg_class c WHERE c.oid = $1 AND c.relkind IN ('v', 'm')
  ) details ORDER BY place, line`;
