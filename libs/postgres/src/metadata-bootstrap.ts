import pg from 'pg';
import { MIGRATOR, REPORTING, REPORTING_READER, appRole, asAdmin, ensureRole, ownerRole, systemRole } from './roles.ts';
import { scramVerifier } from './scram.ts';
import { readStatistics } from './statistics.ts';

/** The two logins of one service. */
export interface ServicePasswords {
  app: string;
  system: string;
}

export interface MetadataServerOptions {
  /** Passwords by service name, e.g. `{ identity: { app, system } }`. */
  services: Readonly<Record<string, ServicePasswords>>;
  migratorPassword: string;
  /** Made when missing; null makes the roles only. */
  database?: string | null;
}

const EXTENSIONS = ['pgcrypto', 'citext', 'pg_trgm', 'btree_gin'];
const DEFAULT_DATABASE = 'mad_metadata';
/** The service that shows people what servers say of themselves. */
const STATISTICS_READER = 'provisioner';

const id = pg.escapeIdentifier;

async function login(password: string): Promise<string> {
  const verifier = pg.escapeLiteral(await scramVerifier(password));
  return `LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD ${verifier}`;
}

async function ensureServiceRoles(client: pg.Client, service: string, passwords: ServicePasswords): Promise<void> {
  const owner = ownerRole(service);
  await ensureRole(client, owner, 'NOLOGIN NOSUPERUSER NOBYPASSRLS');
  await client.query(`GRANT ${id(owner)} TO ${id(MIGRATOR)} WITH INHERIT FALSE, SET TRUE`);
  for (const [role, password] of [
    [appRole(service), passwords.app],
    [systemRole(service), passwords.system],
  ] as const) {
    await ensureRole(client, role, await login(password));
    await client.query(`ALTER ROLE ${id(role)} SET search_path = ${id(service)}, public`);
    await client.query(`ALTER ROLE ${id(role)} SET timezone = 'UTC'`);
  }
}

/** PUBLIC may connect to every new database until somebody takes that away. */
async function closeToPublic(client: pg.Client, database: string): Promise<void> {
  await client.query(`REVOKE CONNECT, TEMPORARY ON DATABASE ${id(database)} FROM PUBLIC`);
}

/**
 * Prepares a Postgres server (16 or later) for the metadata database: the roles of every service, the migrator, the
 * reporting roles, and the database. Safe to repeat; passwords are set to the given ones each time.
 * `adminUrl` must be a superuser's: BYPASSRLS and extensions ask for one.
 */
export async function bootstrapServer(adminUrl: string, options: MetadataServerOptions): Promise<void> {
  await asAdmin(adminUrl, async (client) => {
    await ensureRole(client, MIGRATOR, `${await login(options.migratorPassword)} NOINHERIT`);
    await ensureRole(client, REPORTING, 'NOLOGIN NOSUPERUSER BYPASSRLS');
    await ensureRole(client, REPORTING_READER, 'NOLOGIN NOSUPERUSER NOBYPASSRLS');
    await client.query(`GRANT ${id(REPORTING)} TO ${id(MIGRATOR)} WITH INHERIT FALSE, SET TRUE`);
    for (const [service, passwords] of Object.entries(options.services)) {
      await ensureServiceRoles(client, service, passwords);
    }
    for (const database of ['postgres', 'template1']) await closeToPublic(client, database);
  });
  if (options.database === null) return;
  await createMetadataDatabase(adminUrl, {
    database: options.database ?? DEFAULT_DATABASE,
    services: Object.keys(options.services),
  });
}

/** Lets the logins of the services and readers of `reporting`, and nobody else, connect to a database. A clone of a template needs it anew. */
export async function grantDatabase(client: pg.Client, database: string, services: readonly string[]): Promise<void> {
  await closeToPublic(client, database);
  const roles = [MIGRATOR, ...services.flatMap((service) => [appRole(service), systemRole(service)])];
  const readers = [...roles, REPORTING_READER];
  await client.query(`GRANT CONNECT ON DATABASE ${id(database)} TO ${readers.map(id).join(', ')}`);
  // COPY into a table under row-level security goes through a temporary table.
  await client.query(`GRANT TEMPORARY ON DATABASE ${id(database)} TO ${roles.map(id).join(', ')}`);
}

async function prepareSchema(client: pg.Client, schema: string, service: string): Promise<void> {
  const owner = id(ownerRole(service));
  const logins = [appRole(service), systemRole(service)].map(id).join(', ');
  await client.query(`CREATE SCHEMA IF NOT EXISTS ${id(schema)} AUTHORIZATION ${owner}`);
  await client.query(`GRANT USAGE ON SCHEMA ${id(schema)} TO ${logins}`);
  const byDefault = `ALTER DEFAULT PRIVILEGES FOR ROLE ${owner} IN SCHEMA ${id(schema)}`;
  await client.query(`${byDefault} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO ${logins}`);
  await client.query(`${byDefault} GRANT USAGE, SELECT ON SEQUENCES TO ${logins}`);
}

/**
 * Makes the metadata database when missing, with its extensions and, for every service, the schemas `<service>` and
 * `<service>_boss` (for pg-boss) owned by the service's owner, whose future tables its two logins may read and write.
 * The roles must exist (`bootstrapServer`). Safe to repeat.
 */
export async function createMetadataDatabase(
  adminUrl: string,
  { database, services }: { database: string; services: readonly string[] },
): Promise<void> {
  await asAdmin(adminUrl, async (client) => {
    const { rowCount } = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [database]);
    if (rowCount === 0) await client.query(`CREATE DATABASE ${id(database)} STRATEGY WAL_LOG`);
    await grantDatabase(client, database, services);
  });
  const url = new URL(adminUrl);
  url.pathname = `/${encodeURIComponent(database)}`;
  await asAdmin(url.href, async (client) => {
    for (const extension of EXTENSIONS) await client.query(`CREATE EXTENSION IF NOT EXISTS ${extension} SCHEMA public`);
    for (const service of services) {
      await prepareSchema(client, service, service);
      await prepareSchema(client, `${service}_boss`, service);
      await client.query(`GRANT USAGE ON SCHEMA ${id(service)} TO ${id(REPORTING)}`);
    }
    if (services.includes(STATISTICS_READER)) await readStatistics(client, systemRole(STATISTICS_READER));
    await client.query(`CREATE SCHEMA IF NOT EXISTS reporting AUTHORIZATION ${id(REPORTING)}`);
  });
}
