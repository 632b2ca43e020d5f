import pg from 'pg';
import { clientOptions } from './client-options.ts';
import { withClient } from './with-client.ts';

/** The login that runs every migration: holds nothing itself, becomes an owner by SET ROLE. */
export const MIGRATOR = 'mad_migrator';
/** Owns the read-only views that join across services; nobody logs in as it. */
export const REPORTING = 'mad_reporting';
/** May read the views of `reporting` and nothing else; people with SQL are made members of it. */
export const REPORTING_READER = 'mad_reporting_reader';

function checkName(service: string): string {
  if (!/^[a-z][a-z0-9_]{0,40}$/.test(service)) throw new Error(`not a service or schema name: ${service}`);
  return service;
}

/** Owns a service's schema; nobody logs in as it. */
export function ownerRole(service: string): string {
  return `mad_${checkName(service)}_owner`;
}

/** The login under which a service serves its users: bound to one organization by row-level security. */
export function appRole(service: string): string {
  return `mad_${checkName(service)}`;
}

/** The login for what must cross organizations: look-ups at login, the fair claim, reapers. */
export function systemRole(service: string): string {
  return `mad_${checkName(service)}_system`;
}

/** Runs `fn` as the server's administrator; one bootstrap at a time, because roles are shared by all databases. */
export async function asAdmin<T>(adminUrl: string, fn: (client: pg.Client) => Promise<T>): Promise<T> {
  return withClient({ ...clientOptions(adminUrl), application_name: 'mad-bootstrap' }, async (client) => {
    await client.query(`SELECT pg_advisory_lock(hashtext('mad.bootstrap'))`);
    return fn(client);
  });
}

/** Makes the role when missing and gives it exactly these attributes, e.g. `LOGIN NOINHERIT PASSWORD '…'`. */
export async function ensureRole(client: pg.ClientBase, name: string, attributes: string): Promise<void> {
  const role = pg.escapeIdentifier(name);
  const { rowCount } = await client.query('SELECT 1 FROM pg_roles WHERE rolname = $1', [name]);
  if (rowCount === 0) await client.query(`CREATE ROLE ${role}`);
  await client.query(`ALTER ROLE ${role} ${attributes}`);
}
