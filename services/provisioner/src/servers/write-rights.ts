import { SECOND_MS, sleep } from '@mad/process';
import pg from 'pg';

const id = pg.escapeIdentifier;
const text = pg.escapeLiteral;

/** How long to wait for sessions to end that were told to. */
const TERMINATE_MS = 5 * SECOND_MS;
/** How long what only reads may go on that began while it still might write. */
const READERS_MS = SECOND_MS / 2;
const POLL_MS = 25;

/** The roles of a tenant schema on a server. */
export interface SchemaRoles {
  owner: string;
  app: string;
  reader: string;
}

/** Makes the role that read-only databases' logins hold. Repeatable, also at once. */
export async function ensureReader(client: pg.ClientBase, reader: string): Promise<void> {
  await client.query(`DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ${text(reader)}) THEN CREATE ROLE ${id(reader)} NOLOGIN; END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
  END $$`);
}

export async function hasReader(client: pg.ClientBase, reader: string): Promise<boolean> {
  const { rowCount } = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [reader]);
  return rowCount === 1;
}

/**
 * Inside a tenant's database: the reader may read what the app role may, what migrations make meanwhile included. Not
 * functions that run with their owner's rights: they could write. Repeatable.
 */
export async function grantReading(inside: pg.ClientBase, schema: string, roles: SchemaRoles): Promise<void> {
  const { owner, reader } = { owner: id(roles.owner), reader: id(roles.reader) };
  await inside.query(`
    SET ROLE ${owner};
    GRANT USAGE ON SCHEMA ${id(schema)} TO ${reader};
    ALTER DEFAULT PRIVILEGES FOR ROLE ${owner} IN SCHEMA ${id(schema)} GRANT SELECT ON TABLES TO ${reader};
    DO $$ DECLARE grants text; BEGIN
      SELECT string_agg(format('GRANT %s TO %I', what, ${text(roles.reader)}), ';') INTO grants FROM (
        SELECT 'SELECT ON ' || c.oid::regclass FROM pg_class c
        WHERE c.relnamespace = ${text(schema)}::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
          AND has_table_privilege(${text(roles.app)}, c.oid, 'SELECT')
        UNION ALL
        SELECT 'EXECUTE ON ROUTINE ' || p.oid::regprocedure FROM pg_proc p
        WHERE p.pronamespace = ${text(schema)}::regnamespace AND NOT p.prosecdef AND p.prokind <> 'p'
          AND has_function_privilege(${text(roles.app)}, p.oid, 'EXECUTE')
      ) AS found (what);
      IF grants IS NOT NULL THEN EXECUTE grants; END IF;
    END $$;
    RESET ROLE;`);
}

/** Takes all of it back: the database's rights are what they were. Repeatable. */
export async function revokeReading(inside: pg.ClientBase, schema: string, roles: SchemaRoles): Promise<void> {
  const { owner, reader } = { owner: id(roles.owner), reader: id(roles.reader) };
  await inside.query(`
    SET ROLE ${owner};
    ALTER DEFAULT PRIVILEGES FOR ROLE ${owner} IN SCHEMA ${id(schema)} REVOKE SELECT ON TABLES FROM ${reader};
    REVOKE ALL ON ALL TABLES IN SCHEMA ${id(schema)} FROM ${reader};
    REVOKE ALL ON ALL ROUTINES IN SCHEMA ${id(schema)} FROM ${reader};
    REVOKE ALL ON SCHEMA ${id(schema)} FROM ${reader};
    RESET ROLE;`);
}

/**
 * The logins hold the reader's rights instead of the app role's, from their next statement on, in open sessions too.
 * Repeatable. Throws when one of them still has the app role's by another way.
 */
export async function letRead(client: pg.ClientBase, logins: readonly string[], roles: SchemaRoles): Promise<void> {
  const names = logins.map(id).join(', ');
  // One text, one transaction: nobody is without rights, and nobody has both.
  await client.query(`GRANT ${id(roles.reader)} TO ${names} WITH INHERIT TRUE, SET FALSE;
    REVOKE ${id(roles.app)} FROM ${names};`);
  const { rows } = await client.query<{ login: string }>(
    `SELECT login FROM unnest($1::text[]) login WHERE pg_has_role(login, $2, 'MEMBER')`,
    [logins, roles.app],
  );
  if (rows.length > 0) throw new Error(`may write still: ${rows.map(({ login }) => login).join(', ')}`);
}

/** The logins hold the app role's rights again, and only those. Repeatable. */
export async function letWrite(client: pg.ClientBase, logins: readonly string[], roles: SchemaRoles): Promise<void> {
  const names = logins.map(id).join(', ');
  const revoke = (await hasReader(client, roles.reader)) ? `REVOKE ${id(roles.reader)} FROM ${names};` : '';
  await client.query(`GRANT ${id(roles.app)} TO ${names} WITH INHERIT TRUE, SET FALSE; ${revoke}`);
}

/**
 * Ends the transactions that began while their logins might write: at once where they have written, which could still be
 * committed, and after half a second all others, which may be in the middle of a statement that was allowed to.
 */
export async function endWrites(client: pg.ClientBase, database: string, logins: readonly string[]): Promise<void> {
  const { rows } = await client.query<{ now: string }>('SELECT clock_timestamp()::text AS now');
  const began = performance.now();
  for (;;) {
    const late = performance.now() - began >= READERS_MS;
    const found = await client.query<{ ended: boolean | null }>(
      `SELECT CASE WHEN backend_xid IS NOT NULL OR $4 THEN pg_terminate_backend(pid, $5) END AS ended
       FROM pg_stat_activity WHERE datname = $1 AND usename = ANY ($2) AND xact_start < $3`,
      [database, logins, rows[0]!.now, late, TERMINATE_MS],
    );
    if (found.rows.length === 0) return;
    // What does not end in time makes the step fail, and be tried again.
    if (found.rows.some(({ ended }) => ended === false)) throw new Error(`sessions in ${database} do not end`);
    await sleep(POLL_MS);
  }
}
