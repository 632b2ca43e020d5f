import pg from 'pg';
import { clientOptions } from './client-options.ts';

/** A named rule of a table or domain. */
export interface Constraint {
  /** The table's or domain's name, without schema. */
  table: string;
  name: string;
  kind: 'CHECK' | 'UNIQUE' | 'FOREIGN KEY' | 'PRIMARY KEY' | 'EXCLUDE';
  definition: string;
}

async function query<R extends pg.QueryResultRow>(url: string, sql: string, params: unknown[]): Promise<R[]> {
  const client = new pg.Client({ ...clientOptions(url), application_name: 'mad-catalog' });
  await client.connect();
  try {
    return (await client.query<R>(sql, params)).rows;
  } finally {
    await client.end();
  }
}

/** Partitions repeat their parent's rules: named once, by the parent. */
const CONSTRAINTS_SQL = `
  SELECT coalesce(c.relname, t.typname) AS "table", k.conname AS name, pg_get_constraintdef(k.oid) AS definition,
    CASE k.contype WHEN 'c' THEN 'CHECK' WHEN 'u' THEN 'UNIQUE' WHEN 'f' THEN 'FOREIGN KEY' WHEN 'p' THEN 'PRIMARY KEY'
      ELSE 'EXCLUDE' END AS kind
  FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
    LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid
  WHERE n.nspname = $1 AND k.contype IN ('c', 'u', 'f', 'p', 'x') AND NOT coalesce(c.relispartition, false)
    AND coalesce(c.relname, '') <> 'migrations'
    -- A key that refers to a partitioned table is repeated for each partition it refers to.
    AND k.conparentid = 0
  UNION ALL
  -- A unique index that is partial or over an expression is a rule too, though no constraint.
  SELECT c.relname, i.relname, pg_get_indexdef(x.indexrelid), 'UNIQUE'
  FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = $1 AND x.indisunique AND NOT c.relispartition
    AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = x.indexrelid)
  ORDER BY 1, 2`;

/** Every CHECK, UNIQUE, FOREIGN KEY, PRIMARY KEY and exclusion of a schema, also of its domains and unique indexes. */
export async function listConstraints(url: string, schema: string): Promise<Constraint[]> {
  return query<Constraint & pg.QueryResultRow>(url, CONSTRAINTS_SQL, [schema]);
}

/** Rights in a fixed order, by name: the catalog keeps them as they were given, and leaves out what is the default. */
const RIGHTS = (acl: string): string => `
  coalesce((SELECT string_agg(format('%s=%s', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege_type), ','
    ORDER BY grantee::regrole::text, privilege_type) FROM aclexplode(${acl})), '')`;

const OF_EXTENSION = (catalog: string, oid: string): string =>
  `EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = '${catalog}'::regclass AND d.objid = ${oid} AND d.deptype = 'e')`;

const FINGERPRINT_SQL = `
  WITH relations AS (
    SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname NOT IN ('migrations', 'migrations_id_seq') AND NOT ${OF_EXTENSION('pg_class', 'c.oid')})
  SELECT format('relation %s kind %s owner %s rls %s/%s key %s bound %s rights %s comment %s', c.relname, c.relkind,
      c.relowner::regrole, c.relrowsecurity, c.relforcerowsecurity, coalesce(pg_get_partkeydef(c.oid), ''),
      coalesce(pg_get_expr(c.relpartbound, c.oid), ''), ${RIGHTS(`coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))`)}, coalesce(obj_description(c.oid, 'pg_class'), ''))
    AS line FROM relations c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S')
  UNION ALL
  SELECT format('column %s.%s %s null %s default %s generated %s rights %s comment %s', c.relname, a.attname,
      format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
      a.attgenerated::text || a.attidentity::text, ${RIGHTS('a.attacl')}, coalesce(col_description(c.oid, a.attnum), ''))
    FROM relations c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE c.relkind IN ('r', 'p', 'v', 'm')
  UNION ALL
  SELECT format('constraint %s.%s %s valid %s', coalesce(c.relname, t.typname), k.conname, pg_get_constraintdef(k.oid), k.convalidated)
    FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
    LEFT JOIN relations c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid
    WHERE n.nspname = $1 AND coalesce(c.oid, t.oid) IS NOT NULL
  UNION ALL
  SELECT format('index %s valid %s', pg_get_indexdef(x.indexrelid), x.indisvalid) FROM pg_index x JOIN relations c ON c.oid = x.indrelid
  UNION ALL
  SELECT format('policy %s.%s %s to %s using %s check %s', tablename, policyname, cmd, roles, qual, with_check)
    FROM pg_policies WHERE schemaname = $1
  UNION ALL
  SELECT format('trigger %s', pg_get_triggerdef(t.oid)) FROM pg_trigger t JOIN relations c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
  UNION ALL
  SELECT format('view %s %s', c.relname, pg_get_viewdef(c.oid)) FROM relations c WHERE c.relkind IN ('v', 'm')
  UNION ALL
  SELECT format('function %s owner %s rights %s', pg_get_functiondef(p.oid), p.proowner::regrole, ${RIGHTS(`coalesce(p.proacl, acldefault('f', p.proowner))`)})
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = $1 AND p.prokind IN ('f', 'p') AND NOT ${OF_EXTENSION('pg_proc', 'p.oid')}
  UNION ALL
  SELECT format('type %s %s %s', t.typname, t.typtype, CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod)
      ELSE (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid) END)
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE n.nspname = $1 AND t.typtype IN ('e', 'd') AND NOT ${OF_EXTENSION('pg_type', 't.oid')}
  ORDER BY 1`;

/**
 * What a schema really consists of, one sorted line per object, read from the catalog and not from any record of
 * migrations: relations, columns, constraints and indexes (also invalid ones), policies, triggers, views, functions,
 * types, owners, rights, comments. Equal schemas give equal lines. Objects of extensions and the record of migrations are
 * left out.
 */
export async function schemaFingerprint(url: string, schema: string): Promise<string[]> {
  const rows = await query<{ line: string }>(url, FINGERPRINT_SQL, [schema]);
  return rows.map(({ line }) => line);
}
