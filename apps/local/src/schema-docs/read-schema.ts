import { clientOptions, withClient } from '@mad/postgres';
import type pg from 'pg';

/** A column as the diagram shows it. */
export interface Column {
  name: string;
  /** In Postgres's words, e.g. `timestamp(3) with time zone`, `catalog.job_status`. */
  type: string;
  nullable: boolean;
  comment: string;
}

/** A rule of a table or domain; what only repeats another in a partition is left out. */
export interface Constraint {
  /** The table's or domain's name. */
  on: string;
  name: string;
  kind: 'check' | 'exclusion' | 'foreign key' | 'primary key' | 'unique';
  definition: string;
  /** The columns it is over, in its order; empty for a domain's. */
  columns: string[];
  /** Of a foreign key: the table it refers to. */
  refersTo: string;
}

/** An index; those of partitions are left out. */
export interface Index {
  table: string;
  name: string;
  unique: boolean;
  /** Whether a constraint brought it along. */
  ofConstraint: boolean;
  /** Method, keys and condition, e.g. `btree (org_id) WHERE …`. */
  definition: string;
}

/** A table with its partitions folded into it. */
export interface Table {
  name: string;
  comment: string;
  columns: Column[];
  /** E.g. `HASH (org_id)`; empty when it is whole. */
  partitionedBy: string;
  policies: number;
}

/** An enum's values, or a domain's base type. */
export interface NamedType {
  name: string;
  kind: 'domain' | 'enum';
  values: string;
}

/** One Postgres schema, everything by name. */
export interface SchemaModel {
  name: string;
  tables: Table[];
  constraints: Constraint[];
  indexes: Index[];
  types: NamedType[];
}

/** What pg keeps of which migrations ran is nobody's table. */
const IS_TABLE = `c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'migrations'`;
const OF_EXTENSION = `EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')`;

const TABLES_SQL = `
  SELECT c.relname AS name, coalesce(obj_description(c.oid, 'pg_class'), '') AS comment,
    coalesce(pg_get_partkeydef(c.oid), '') AS "partitionedBy",
    (SELECT count(*)::int FROM pg_policy p WHERE p.polrelid = c.oid) AS policies,
    (SELECT json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
        'nullable', NOT a.attnotnull, 'comment', coalesce(col_description(c.oid, a.attnum), '')) ORDER BY a.attnum)
      FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
  FROM pg_class c WHERE c.relnamespace = $1::regnamespace AND ${IS_TABLE}`;

/** Postgres 18 keeps NOT NULL as constraints too, earlier versions do not: they are the columns' and left out. */
const CONSTRAINTS_SQL = `
  SELECT coalesce(c.relname, t.typname) AS "on", k.conname AS name, pg_get_constraintdef(k.oid, true) AS definition,
    CASE k.contype WHEN 'c' THEN 'check' WHEN 'u' THEN 'unique' WHEN 'f' THEN 'foreign key' WHEN 'p' THEN 'primary key'
      ELSE 'exclusion' END AS kind,
    coalesce((SELECT json_agg(a.attname ORDER BY key.place) FROM unnest(k.conkey) WITH ORDINALITY AS key (attnum, place)
      JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = key.attnum), '[]') AS columns,
    coalesce((SELECT r.relname FROM pg_class r WHERE r.oid = k.confrelid), '') AS "refersTo"
  FROM pg_constraint k LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid
  WHERE k.connamespace = $1::regnamespace AND k.contype IN ('c', 'u', 'f', 'p', 'x') AND k.conparentid = 0
    AND (c.oid IS NULL OR (${IS_TABLE}))`;

const INDEXES_SQL = `
  SELECT c.relname AS "table", i.relname AS name, x.indisunique AS "unique",
    EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.indexrelid AND k.contype IN ('p', 'u', 'x')) AS "ofConstraint",
    regexp_replace(pg_get_indexdef(x.indexrelid, 0, true), '^.*? USING ', '') AS definition
  FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
  WHERE c.relnamespace = $1::regnamespace AND ${IS_TABLE}`;

const TYPES_SQL = `
  SELECT t.typname AS name, CASE t.typtype WHEN 'e' THEN 'enum' ELSE 'domain' END AS kind,
    CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod)
      ELSE (SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid) END AS values
  FROM pg_type t WHERE t.typnamespace = $1::regnamespace AND t.typtype IN ('e', 'd') AND NOT ${OF_EXTENSION}`;

/** By code units: the order must not depend on the server's collation. */
const byName = (...names: string[]) => names.join('\0');
const sorted = <T>(items: T[], key: (item: T) => string): T[] =>
  items.toSorted((a, b) => (key(a) < key(b) ? -1 : Number(key(a) > key(b))));

/** Reads a schema from the catalog of a migrated database; `url` is a login that may look at it. */
export async function readSchema(url: string, name: string): Promise<SchemaModel> {
  return withClient({ ...clientOptions(url), application_name: 'mad-schema-docs' }, async (client) => {
    // Names of types and functions come out with their schema, whatever the login's path is.
    await client.query('SET search_path = pg_catalog');
    const rows = async <T extends pg.QueryResultRow>(sql: string) => (await client.query<T>(sql, [name])).rows;
    return {
      name,
      tables: sorted(await rows<Table>(TABLES_SQL), (table) => table.name),
      constraints: sorted(await rows<Constraint>(CONSTRAINTS_SQL), (one) => byName(one.on, one.name)),
      indexes: sorted(await rows<Index>(INDEXES_SQL), (index) => byName(index.table, index.name)),
      types: sorted(await rows<NamedType>(TYPES_SQL), (type) => type.name),
    };
  });
}
