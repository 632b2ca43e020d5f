import type pg from 'pg';

interface Finding {
  problem: string;
}

const LOGIN_SQL = `
  SELECT format('the login %s is a superuser', rolname) AS problem FROM pg_roles
    WHERE rolsuper AND pg_has_role(current_user, oid, 'MEMBER')
  UNION ALL
  SELECT format('the login %s bypasses row-level security', rolname) FROM pg_roles
    WHERE rolbypassrls AND NOT rolsuper AND pg_has_role(current_user, oid, 'MEMBER')
  UNION ALL
  SELECT format('the login owns %s through the role %s', pg_describe_object(d.classid, d.objid, d.objsubid), r.rolname)
    FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
    WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o' AND NOT r.rolsuper
      AND pg_has_role(current_user, r.oid, 'MEMBER')
      AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  UNION ALL
  SELECT format('everybody may connect to the database %s', datname) FROM pg_database
    WHERE datname IN (current_database(), 'postgres', 'template1') AND has_database_privilege('public', oid, 'CONNECT')`;

/** Partitions count as tables of their own: read directly, they do not ask the parent's policies. */
const TABLES_SQL = `
  SELECT format('the table %I.%I has org_id and does not force row-level security', n.nspname, c.relname) AS problem
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id' AND NOT a.attisdropped
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)`;

/**
 * Refuses a login that row-level security would not bind: a superuser, one that bypasses it, an owner of anything
 * (also by membership), a schema with an unguarded table, a server whose databases are open to everybody.
 * Throws an error that lists every problem found.
 */
export async function selfCheck(pool: pg.Pool, schema: string): Promise<void> {
  const login = await pool.query<Finding>(LOGIN_SQL);
  const tables = await pool.query<Finding>(TABLES_SQL, [schema]);
  const problems = [...login.rows, ...tables.rows].map(({ problem }) => problem);
  if (problems.length === 0) return;
  throw new Error(`refusing to serve from schema ${schema}:\n${problems.map((problem) => `  ${problem}`).join('\n')}`);
}
