import { randomBytes } from 'node:crypto';
import { SECOND_MS } from '@mad/process';
import { scramVerifier } from '@mad/postgres';
import pg from 'pg';
import type { ServerRow } from '../db/entities/server.ts';
import { schemaOwner } from '../domain/names.ts';
import { dropSubscription } from '../servers/remove-database.ts';

const id = pg.escapeIdentifier;
const text = pg.escapeLiteral;

/** How long to wait for a sender to end that was told to. */
const TERMINATE_MS = 5 * SECOND_MS;
const LOCK_WAIT = '10s';

/** What is needed for one tenant's stream of changes. */
export interface Stream {
  schema: string;
  database: string;
  /** Of the publication, the subscription, the slot and the login, all of this move alone. */
  name: string;
}

const qualified = (schema: string, table: string): string => `${id(schema)}.${id(table)}`;

/** Why a server cannot send a database's changes; undefined when it can. Asked in any database of it. */
export async function whyNoSource(client: pg.ClientBase, name: string): Promise<string | undefined> {
  const { rows } = await client.query<{ level: string; allowed: boolean }>(
    `SELECT current_setting('wal_level') AS level, rolreplication AS allowed FROM pg_roles WHERE rolname = current_user`,
  );
  const { level, allowed } = rows[0]!;
  if (level !== 'logical') return `${name} has wal_level = ${level}, which logical replication cannot work with`;
  return allowed ? undefined : `${name} was prepared by an older release, without the right to replicate`;
}

/** Why a server cannot receive a database's changes; undefined when it can. */
export async function whyNoTarget(client: pg.ClientBase, name: string): Promise<string | undefined> {
  const { rows } = await client.query<{ allowed: boolean }>(
    `SELECT pg_has_role(current_user, 'pg_create_subscription', 'USAGE') AS allowed`,
  );
  return rows[0]!.allowed ? undefined : `${name} was prepared by an older release, without the right to subscribe`;
}

/** Tables without a primary key: of them whole rows must be sent, or nobody could change or delete any. */
export async function tablesWithoutKey(inside: pg.ClientBase, schema: string): Promise<string[]> {
  const { rows } = await inside.query<{ name: string }>(
    `SELECT c.relname AS name FROM pg_class c
     WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'migrations'
       AND c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
     ORDER BY 1`,
    [schema],
  );
  return rows.map(({ name }) => name);
}

/** What the source's tables send of changed rows: all of it, or what is usual. Waits for writers. */
export async function identify(
  inside: pg.ClientBase,
  schema: string,
  tables: readonly string[],
  identity: 'FULL' | 'DEFAULT',
): Promise<void> {
  await inside.query(`SET lock_timeout = '${LOCK_WAIT}'`);
  for (const table of tables) {
    const { rows } = await inside.query<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', [
      qualified(schema, table),
    ]);
    if (rows[0]!.there) await inside.query(`ALTER TABLE ${qualified(schema, table)} REPLICA IDENTITY ${identity}`);
  }
}

/**
 * Makes the source ready to send: a publication of these tables, partitions by way of their parents, and a login that may do
 * nothing but read and replicate this database. Returns its password. `inside`: the provisioner, in the database.
 */
export async function publish(
  inside: pg.ClientBase,
  { schema, database, name }: Stream,
  tables: readonly string[],
): Promise<string> {
  const owner = id(schemaOwner(schema));
  const password = randomBytes(24).toString('base64url');
  await inside.query(`
    GRANT CREATE ON DATABASE ${id(database)} TO ${owner};
    SET ROLE ${owner};
    CREATE PUBLICATION ${id(name)} FOR TABLE ${tables.map((table) => qualified(schema, table)).join(', ')}
      WITH (publish_via_partition_root = true);
    RESET ROLE;
    REVOKE CREATE ON DATABASE ${id(database)} FROM ${owner};
    CREATE ROLE ${id(name)} LOGIN REPLICATION PASSWORD ${text(await scramVerifier(password))};
    GRANT ${owner} TO ${id(name)} WITH INHERIT TRUE, SET FALSE;
    GRANT CONNECT ON DATABASE ${id(database)} TO ${id(name)};`);
  return password;
}

/**
 * Subscribes the copy: its tables are emptied of what migrations put in, copied, and then kept up to date. Every change is on
 * its disk before the source is told, so that what was received is known at once.
 */
export async function subscribe(
  inside: pg.ClientBase,
  { schema, database, name }: Stream,
  { tables, source, password }: { tables: readonly string[]; source: ServerRow; password: string },
): Promise<void> {
  await inside.query(`
    SET ROLE ${id(schemaOwner(schema))};
    TRUNCATE ${tables.map((table) => qualified(schema, table)).join(', ')} CASCADE;
    -- The subscription looks its tables up as the provisioner, and writes to them as their owner.
    GRANT USAGE ON SCHEMA ${id(schema)} TO SESSION_USER;
    RESET ROLE;`);
  const connection = conninfo({
    host: source.host,
    port: String(source.port),
    dbname: database,
    user: name,
    password,
    application_name: name,
    connect_timeout: '5',
    ...encryption(source),
  });
  // It cannot stand in a transaction: it makes the slot on the source.
  await inside.query(
    `CREATE SUBSCRIPTION ${id(name)} CONNECTION ${text(connection)} PUBLICATION ${id(name)}
     WITH (copy_data = true, slot_name = ${text(name)}, synchronous_commit = 'on')`,
  );
}

/** As ServerRow says it: without one, in clear on loopback and verified everywhere else. */
function encryption({ host, sslmode }: ServerRow): Record<string, string> {
  const mode = sslmode === '' ? (isLoopback(host) ? 'disable' : 'verify-full') : sslmode;
  if (mode === 'no-verify') return { sslmode: 'require' };
  return mode === 'verify-full' ? { sslmode: mode, sslrootcert: 'system' } : { sslmode: mode };
}

const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || host.startsWith('127.');

function conninfo(parts: Record<string, string>): string {
  return Object.entries(parts)
    .map(([key, value]) => `${key}='${value.replace(/[\\']/g, String.raw`\$&`)}'`)
    .join(' ');
}

/** How far the copy is. `inside`: in the copy. */
export async function copied(inside: pg.ClientBase, name: string): Promise<{ ready: number; tables: number }> {
  const { rows } = await inside.query<{ ready: number; tables: number }>(
    `SELECT count(*) FILTER (WHERE r.srsubstate = 'r')::int AS ready, count(*)::int AS tables
     FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid WHERE s.subname = $1`,
    [name],
  );
  return rows[0]!;
}

/** Where the source's log ends, everything that was committed on the disk. `inside`: in the source. */
export async function endOfLog(inside: pg.ClientBase): Promise<string> {
  // A commit of its own, waited for: those of sessions that did not wait are on the disk with it.
  await inside.query(`SELECT pg_logical_emit_message(true, 'mad', 'end')`);
  const { rows } = await inside.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn');
  return rows[0]!.lsn;
}

/** Bytes of the source's log up to `lsn` that the copy has not applied; undefined while nothing is sent. */
export async function behind(client: pg.ClientBase, name: string, lsn: string): Promise<number | undefined> {
  const { rows } = await client.query<{ bytes: number | null }>(
    `SELECT greatest(0, pg_wal_lsn_diff($2::pg_lsn, replay_lsn))::float8 AS bytes
     FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming'`,
    [name, lsn],
  );
  return rows[0]?.bytes ?? undefined;
}

/** The copy takes no more changes. The source is not asked: it may be gone. Repeatable. */
export async function unsubscribe(inside: pg.ClientBase, { schema, name }: Stream): Promise<void> {
  const { rowCount } = await inside.query('SELECT FROM pg_subscription WHERE subname = $1', [name]);
  if (rowCount === 1) await dropSubscription(inside, name);
  // A copy that was never finished may have none.
  const { rowCount: there } = await inside.query('SELECT FROM pg_namespace WHERE nspname = $1', [schema]);
  if (there === 0) return;
  await inside.query(`
    SET ROLE ${id(schemaOwner(schema))};
    REVOKE USAGE ON SCHEMA ${id(schema)} FROM SESSION_USER;
    RESET ROLE;`);
}

/**
 * The source sends no more: no slot keeps its log from being removed, no login is left, no publication. Repeatable.
 * `inside`: the provisioner, in the source's database.
 */
export async function unpublish(inside: pg.ClientBase, { schema, database, name }: Stream): Promise<void> {
  const { rows } = await inside.query<{ slot_name: string }>(
    'SELECT slot_name FROM pg_replication_slots WHERE database = $1',
    [database],
  );
  const known = await inside.query('SELECT FROM pg_roles WHERE rolname = $1', [name]);
  if (known.rowCount === 1) {
    await inside.query(`REVOKE CONNECT ON DATABASE ${id(database)} FROM ${id(name)}`);
    await inside.query('SELECT pg_terminate_backend(pid, $2) FROM pg_stat_activity WHERE usename = $1', [
      name,
      TERMINATE_MS,
    ]);
  }
  for (const { slot_name: slot } of rows) {
    await inside.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1', [
      slot,
    ]);
  }
  await inside.query(`SET ROLE ${id(schemaOwner(schema))}; DROP PUBLICATION IF EXISTS ${id(name)}; RESET ROLE;`);
  if (known.rowCount === 1) await inside.query(`DROP ROLE ${id(name)}`);
}
