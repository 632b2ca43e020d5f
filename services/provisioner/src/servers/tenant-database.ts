import { scramVerifier } from '@mad/postgres';
import { SECOND_MS } from '@mad/process';
import pg from 'pg';
import { loginsText, presentRoles, type LoginRole } from './login-roles.ts';

const id = pg.escapeIdentifier;
const text = pg.escapeLiteral;

/** How long to wait for sessions to end that were told to. */
const TERMINATE_MS = 5 * SECOND_MS;
/** What Postgres says of a database with a session in it. */
const IN_USE = '55006';
const CREATE_TRIES = 3;

/**
 * Makes the logins with these passwords, members of the role that holds the grants, and puts the wall around the tenant:
 * PUBLIC may do nothing, its two logins may connect. Repeatable.
 */
export async function admitLogins(
  client: pg.ClientBase,
  database: string,
  appRole: string,
  logins: readonly LoginRole[],
): Promise<void> {
  const made = await loginsText(logins);
  const names = logins.map(({ name }) => id(name)).join(', ');
  const target = id(database);
  // One text, one transaction: the database never is open to everybody.
  await client.query(`${made}
    GRANT ${id(appRole)} TO ${names} WITH INHERIT TRUE, SET FALSE;
    REVOKE ALL ON DATABASE ${target} FROM PUBLIC;
    GRANT CONNECT ON DATABASE ${target} TO ${names};
    ALTER DATABASE ${target} ALLOW_CONNECTIONS true;`);
}

/**
 * Copies the template. What an earlier attempt left under the name goes first: nobody has used it, and it may be of an
 * older template. Nobody may connect until `admitLogins` has shut PUBLIC out. While somebody is in the template it waits,
 * a quarter of a minute in all.
 */
export async function createDatabase(client: pg.ClientBase, database: string, template: string): Promise<void> {
  await dropDatabase(client, database);
  for (let tries = 1; ; tries += 1) {
    try {
      // WAL_LOG: the other strategy forces checkpoints, which is ten times slower.
      await client.query(
        `CREATE DATABASE ${id(database)} TEMPLATE ${id(template)} STRATEGY WAL_LOG ALLOW_CONNECTIONS false`,
      );
      return;
    } catch (error) {
      // Only a superuser gets in, whom the provisioner cannot throw out. Postgres has waited for five seconds by itself.
      if ((error as { code?: string }).code !== IN_USE || tries === CREATE_TRIES) throw error;
    }
  }
}

/**
 * Throws when anybody else than the provisioner and the logins has a right on the database, or when a login may not
 * connect or does not hold the grants.
 */
export async function checkWall(
  client: pg.ClientBase,
  database: string,
  appRole: string,
  logins: readonly string[],
): Promise<void> {
  const { rows } = await client.query<{ strangers: string[]; shut_out: string[] }>(
    `SELECT array(
         SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END
         FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
         WHERE d.datname = $1 AND a.grantee <> d.datdba
         EXCEPT SELECT unnest($2::text[])) AS strangers,
       array(
         SELECT login FROM unnest($2::text[]) login
         WHERE NOT (has_database_privilege(login, $1, 'CONNECT') AND pg_has_role(login, $3, 'USAGE')
           AND (SELECT rolcanlogin FROM pg_roles WHERE rolname = login))) AS shut_out`,
    [database, logins, appRole],
  );
  const { strangers, shut_out: shutOut } = rows[0]!;
  if (strangers.length > 0) throw new Error(`others have rights on ${database}: ${strangers.join(', ')}`);
  if (shutOut.length > 0) throw new Error(`cannot use ${database}: ${shutOut.join(', ')}`);
}

/**
 * Shuts the tenant's logins out and ends their sessions, which a REVOKE alone does not. Repeatable. A database or a login
 * that is not there lets nobody in. Throws when a session does not end.
 */
export async function closeConnections(
  client: pg.ClientBase,
  database: string,
  logins: readonly string[],
): Promise<void> {
  if (!(await databaseExists(client, database))) return;
  const present = await presentRoles(client, logins);
  if (present.length === 0) return;
  await client.query(`REVOKE CONNECT ON DATABASE ${id(database)} FROM ${present.map(id).join(', ')}`);
  // A login under way when the right was taken away may still get in: looked at until none is found.
  const told = new Set<number>();
  for (;;) {
    const { rows } = await client.query<{ pid: number }>(
      `SELECT pid, pg_terminate_backend(pid, $3) FROM pg_stat_activity WHERE datname = $1 AND usename = ANY ($2)`,
      [database, present, TERMINATE_MS],
    );
    if (rows.length === 0) return;
    if (rows.some(({ pid }) => told.has(pid))) throw new Error(`sessions in ${database} do not end`);
    for (const { pid } of rows) told.add(pid);
  }
}

/**
 * Gives a login that exists another password; the server is sent only what it stores. Sessions of the login go on.
 * Returns the server's time afterwards, as text: every session under the password before began earlier.
 */
export async function setPassword(client: pg.ClientBase, { name, password }: LoginRole): Promise<string> {
  await client.query(`ALTER ROLE ${id(name)} PASSWORD ${text(await scramVerifier(password))}`);
  const { rows } = await client.query<{ now: string }>('SELECT clock_timestamp()::text AS now');
  return rows[0]!.now;
}

/** Takes a login's password away: nobody gets in as it, whatever they know. Its sessions go on. */
export async function clearPassword(client: pg.ClientBase, login: string): Promise<void> {
  await client.query(`ALTER ROLE ${id(login)} PASSWORD NULL`);
}

/** Ends a login's sessions, or those that began before a time of the server's. Returns how many there were. */
export async function endSessions(client: pg.ClientBase, login: string, before: string | null = null): Promise<number> {
  const { rowCount } = await client.query(
    `SELECT pg_terminate_backend(pid, $3) FROM pg_stat_activity
     WHERE usename = $1 AND ($2::timestamptz IS NULL OR backend_start < $2)`,
    [login, before, TERMINATE_MS],
  );
  return rowCount ?? 0;
}

/** Lets the tenant's logins in again. Repeatable. */
export async function openConnections(
  client: pg.ClientBase,
  database: string,
  logins: readonly string[],
): Promise<void> {
  await client.query(`GRANT CONNECT ON DATABASE ${id(database)} TO ${logins.map(id).join(', ')}`);
}

/** Runs `fn` while a role may connect to a database it otherwise may not. */
export async function whileConnectable<T>(
  client: pg.ClientBase,
  database: string,
  role: string,
  fn: () => Promise<T>,
): Promise<T> {
  await client.query(`GRANT CONNECT ON DATABASE ${id(database)} TO ${id(role)}`);
  try {
    return await fn();
  } finally {
    await client.query(`REVOKE CONNECT ON DATABASE ${id(database)} FROM ${id(role)}`);
  }
}

/** Gives a database its own name. Nobody may be in it. */
export async function renameDatabase(client: pg.ClientBase, from: string, to: string): Promise<void> {
  await client.query(`ALTER DATABASE ${id(from)} RENAME TO ${id(to)}`);
}

/**
 * Gives `current` the name `replaced` and `next` the name `current`: both or neither. The replaced one lets nobody in.
 * Whoever is in one of them is thrown out.
 */
export async function exchange(
  client: pg.ClientBase,
  { current, replaced, next }: { current: string; replaced: string; next: string },
): Promise<void> {
  // Nobody may come in between the end of the sessions and the names' change.
  for (const one of [current, next]) await client.query(`ALTER DATABASE ${id(one)} ALLOW_CONNECTIONS false`);
  await client.query('SELECT pg_terminate_backend(pid, $2) FROM pg_stat_activity WHERE datname = ANY ($1)', [
    [current, next],
    TERMINATE_MS,
  ]);
  // One text, one transaction.
  await client.query(`
    ALTER DATABASE ${id(current)} RENAME TO ${id(replaced)};
    ALTER DATABASE ${id(next)} RENAME TO ${id(current)};
    ALTER DATABASE ${id(current)} ALLOW_CONNECTIONS true;`);
}

/**
 * Puts a database aside under another name: it lets nobody in, and whoever opens it again finds it read-only. Repeatable.
 */
export async function retireDatabase(client: pg.ClientBase, database: string, aside: string): Promise<void> {
  if (!(await databaseExists(client, database))) return;
  await client.query(`ALTER DATABASE ${id(database)} ALLOW_CONNECTIONS false`);
  await client.query('SELECT pg_terminate_backend(pid, $2) FROM pg_stat_activity WHERE datname = $1', [
    database,
    TERMINATE_MS,
  ]);
  await client.query(`ALTER DATABASE ${id(database)} SET default_transaction_read_only = on;
    ALTER DATABASE ${id(database)} RENAME TO ${id(aside)};`);
}

/** Drops a database and whoever is in it; nothing when there is none. */
export async function dropDatabase(client: pg.ClientBase, database: string): Promise<void> {
  await client.query(`DROP DATABASE IF EXISTS ${id(database)} WITH (FORCE)`);
}

/** Drops a role that owns nothing; nothing when there is none. */
export async function dropRole(client: pg.ClientBase, role: string): Promise<void> {
  await client.query(`DROP ROLE IF EXISTS ${id(role)}`);
}

/** Waits for this session's exclusive right to something on the server, by name. Ends with the session. */
export async function lockByName(client: pg.ClientBase, name: string, waitMs: number): Promise<void> {
  // One text, one transaction: the limit is this wait's alone.
  await client.query(`SET LOCAL lock_timeout = ${Math.ceil(waitMs)};
    SELECT pg_advisory_lock(hashtextextended(${text(name)}, 0))`);
}

/** The same without waiting: false when another session has it. */
export async function tryLockByName(client: pg.ClientBase, name: string): Promise<boolean> {
  const { rows } = await client.query<{ got: boolean }>('SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS got', [
    name,
  ]);
  return rows[0]!.got;
}

export async function unlockByName(client: pg.ClientBase, name: string): Promise<void> {
  await client.query('SELECT pg_advisory_unlock(hashtextextended($1, 0))', [name]);
}

export async function databaseExists(client: pg.ClientBase, database: string): Promise<boolean> {
  const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [database]);
  return rowCount === 1;
}
