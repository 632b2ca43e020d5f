import { createHash } from 'node:crypto';
import type pg from 'pg';
import { clientOptions } from './client-options.ts';
import { withClient } from './with-client.ts';

/** A named rule of a table or domain. */
export interface Constraint {
  /** The table's or domain's name, without schema. */
  table: string;
  name: string;
  kind: 'CHECK' | 'UNIQUE' | 'FOREIGN KEY' | 'PRIMARY KEY' | 'EXCLUDE';
  definition: string;
}

async function query<R extends pg.QueryResultRow>(url: string, sql: string, params: unknown[]): Promise<R[]> {
  const config = { ...clientOptions(url), application_name: 'mad-catalog' };
  return withClient(config, async (client) => (await client.query<R>(sql, params)).rows);
}

/** Partitions repeat their parent's rules: named once, by the parent. */
const CONSTRAINTS_SQL = `
  SELECT coalesce(c.relname, t.typname) AS "table", k.conname AS name, pg_get_constraintdef(k.oid) AS definition,
    CASE k.contype WHEN 'c' THEN 'CHECK' WHEN 'u' THEN 'UNIQUE' WHEN 'f' THEN 'FOREIGN KEY' WHEN 'p' THEN 'PRIMARY KEY'
      ELSE 'EXCLUDE' END AS kind
  FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
    LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid
  WHERE n.nspname = $1 AND k.contype IN ('c', 'u', 'f', 'p', 'x') AND NOT coalesce(c.relispartition, false)
    AND coalesce(c.relname, '') NOT IN ('migrations', 'data_changes')
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

/** One thing a schema consists of, as the catalog describes it. */
export interface SchemaObject {
  /** E.g. `table`, `column`, `index`, `rights`. */
  kind: string;
  /** Without the schema's name, unique within its kind, e.g. `notes.body`. */
  name: string;
  /** SQL where the catalog has it: of constraints, indexes, policies, triggers, functions. */
  definition: string;
}

/** The role that read-only databases' logins hold: its rights come and go, and are not the schema's. */
const READER = `'mad_' || $1::text || '_reader'`;

/** Rights in a fixed order, by name: the catalog keeps them as they were given, and leaves out what is the default. */
const RIGHTS = (acl: string): string => `
  coalesce((SELECT string_agg(format('%s=%s', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege_type), ','
    ORDER BY grantee::regrole::text, privilege_type) FROM aclexplode(${acl}) WHERE grantee::regrole::text <> ${READER}), '')`;

const OF_EXTENSION = (catalog: string, oid: string): string =>
  `EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = '${catalog}'::regclass AND d.objid = ${oid} AND d.deptype = 'e')`;

const KIND_OF_RELATION = `CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' ELSE 'table' END`;

/**
 * Partitions by range are made as data comes, so that each database has its own; they are like their parent, and so are
 * the indexes and keys on them. Those for what fits no range are the schema's.
 */
const OBJECTS_SQL = `
  WITH relations AS MATERIALIZED (
    SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
      AND c.relname NOT IN ('migrations', 'migrations_id_seq', 'data_changes') AND NOT ${OF_EXTENSION('pg_class', 'c.oid')}
      AND NOT (c.relispartition AND pg_get_expr(c.relpartbound, c.oid) LIKE 'FOR VALUES FROM %'))
  SELECT ${KIND_OF_RELATION} AS kind, c.relname::text AS name,
      format('kind %s owner %s rls %s/%s key %s bound %s comment %s', c.relkind, c.relowner::regrole, c.relrowsecurity,
        c.relforcerowsecurity, coalesce(pg_get_partkeydef(c.oid), ''), coalesce(pg_get_expr(c.relpartbound, c.oid), ''),
        coalesce(obj_description(c.oid, 'pg_class'), '')) AS definition
    FROM relations c
  UNION ALL
  SELECT 'rights', format('%s %s', ${KIND_OF_RELATION}, c.relname),
      ${RIGHTS(`coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))`)} FROM relations c
  UNION ALL
  SELECT 'column', format('%s.%s', c.relname, a.attname), format('%s null %s default %s generated %s rights %s comment %s',
      format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
      a.attgenerated::text || a.attidentity::text, ${RIGHTS('a.attacl')}, coalesce(col_description(c.oid, a.attnum), ''))
    FROM relations c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE c.relkind <> 'S'
  UNION ALL
  -- What may not be null is said of the column; a key to a partitioned table is repeated for each of its partitions.
  SELECT 'constraint', format('%s.%s', coalesce(c.relname, t.typname), k.conname), pg_get_constraintdef(k.oid)
    FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
    LEFT JOIN relations c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid
    WHERE n.nspname = $1 AND coalesce(c.oid, t.oid) IS NOT NULL AND k.contype <> 'n' AND k.conparentid = 0
  UNION ALL
  SELECT 'index', i.relname, pg_get_indexdef(x.indexrelid) || CASE WHEN x.indisvalid THEN '' ELSE ' INVALID' END
    FROM pg_index x JOIN relations c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid AND NOT i.relispartition
  UNION ALL
  SELECT 'policy', format('%s.%s', p.tablename, p.policyname),
      format('%s to %s using %s check %s', p.cmd, p.roles, p.qual, p.with_check)
    FROM pg_policies p JOIN relations c ON c.relname = p.tablename WHERE p.schemaname = $1
  UNION ALL
  SELECT 'trigger', format('%s.%s', c.relname, t.tgname), pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' ELSE ' DISABLED' END
    FROM pg_trigger t JOIN relations c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
  UNION ALL
  SELECT 'query', c.relname, pg_get_viewdef(c.oid) FROM relations c WHERE c.relkind IN ('v', 'm')
  UNION ALL
  SELECT what.kind, CASE what.kind WHEN 'rights' THEN 'routine ' ELSE '' END
      || format('%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)), what.definition
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    CROSS JOIN LATERAL (VALUES ('function', pg_get_functiondef(p.oid)),
      ('rights', format('%s owner %s', ${RIGHTS(`coalesce(p.proacl, acldefault('f', p.proowner))`)}, p.proowner::regrole))) what (kind, definition)
    WHERE n.nspname = $1 AND p.prokind IN ('f', 'p') AND NOT ${OF_EXTENSION('pg_proc', 'p.oid')}
  UNION ALL
  SELECT 'type', t.typname, format('%s %s', t.typtype, CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod)
      ELSE (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid) END)
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE n.nspname = $1 AND t.typtype IN ('e', 'd') AND NOT ${OF_EXTENSION('pg_type', 't.oid')}
  ORDER BY 1, 2`;

/**
 * What a schema really consists of, read from the catalog and not from any record of migrations: relations, columns,
 * constraints and indexes (also invalid ones), policies, triggers, views, functions, types, owners, rights, comments, in
 * a fixed order. Equal schemas on servers of one release give equal lists. Left out: what belongs to extensions, the
 * record of migrations, partitions by range, and the rights of the schema's reader.
 */
export async function schemaObjects(client: pg.ClientBase, schema: string): Promise<SchemaObject[]> {
  const { rows } = await client.query<SchemaObject>({ name: 'schema-objects', text: OBJECTS_SQL, values: [schema] });
  return rows;
}

/** SHA-256 over what a schema consists of, in hexadecimal, in whatever order it is listed. */
export function fingerprintOf(objects: readonly SchemaObject[]): string {
  const hash = createHash('sha256');
  for (const line of objects.map(({ kind, name, definition }) => JSON.stringify([kind, name, definition])).toSorted()) {
    hash.update(line);
  }
  return hash.digest('hex');
}

/** The same as sorted lines, one per object, for tests that compare two. */
export async function schemaFingerprint(url: string, schema: string): Promise<string[]> {
  const objects = await query<SchemaObject & pg.QueryResultRow>(url, OBJECTS_SQL, [schema]);
  return objects.map(({ kind, name, definition }) => `${kind} ${name} ${definition}`);
}
