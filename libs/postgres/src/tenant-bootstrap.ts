import pg from 'pg';
import { MIGRATOR, asAdmin, ensureRole } from './roles.ts';
import { scramVerifier } from './scram.ts';
import { readStatistics } from './statistics.ts';

/** The login that makes and drops tenant databases and their roles. */
const PROVISIONER = 'mad_provisioner_admin';

export interface TenantServerOptions {
  provisionerPassword: string;
  migratorPassword: string;
  /** The tenant schema whose databases will live here, e.g. `results`. */
  schema: string;
}

const id = pg.escapeIdentifier;

/**
 * Prepares a Postgres server (16 or later) for tenant databases of one tenant schema: the provisioner's login (no
 * superuser; CREATEDB, CREATEROLE, REPLICATION and subscriptions for moves), the roles that own the objects inside every tenant's database and hold the grants,
 * and the migrator. Safe to repeat, once per tenant schema; the server may hold the metadata database too.
 */
export async function bootstrapTenantServer(adminUrl: string, options: TenantServerOptions): Promise<void> {
  if (!/^[a-z][a-z0-9_]{0,30}$/.test(options.schema)) throw new Error(`not a tenant schema: ${options.schema}`);
  const secret = async (password: string) => `PASSWORD ${pg.escapeLiteral(await scramVerifier(password))}`;
  const owner = id(`mad_${options.schema}_owner`);
  const app = id(`mad_${options.schema}_app`);
  await asAdmin(adminUrl, async (client) => {
    await ensureRole(
      client,
      PROVISIONER,
      `LOGIN NOSUPERUSER NOBYPASSRLS CREATEDB CREATEROLE REPLICATION ${await secret(options.provisionerPassword)}`,
    );
    const migratorSecret = await secret(options.migratorPassword);
    await ensureRole(client, MIGRATOR, `LOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT ${migratorSecret}`);
    await ensureRole(client, `mad_${options.schema}_owner`, 'NOLOGIN NOSUPERUSER NOBYPASSRLS');
    await ensureRole(client, `mad_${options.schema}_app`, 'NOLOGIN NOSUPERUSER NOBYPASSRLS');
    // Administration gets in when the tenants have used up every other connection, and may end their sessions.
    await client.query(
      `GRANT pg_signal_backend, pg_use_reserved_connections, pg_create_subscription TO ${id(PROVISIONER)}`,
    );
    // Backups, moves and migrations as well: the migrator inherits nothing else.
    await client.query(`GRANT pg_use_reserved_connections TO ${id(MIGRATOR)} WITH INHERIT TRUE`);
    await readStatistics(client, PROVISIONER);
    // Since Postgres 16, CREATEROLE alone neither assigns nor becomes roles that another made.
    await client.query(`GRANT ${app} TO ${id(PROVISIONER)} WITH ADMIN TRUE, INHERIT FALSE, SET TRUE`);
    await client.query(`GRANT ${owner} TO ${id(PROVISIONER)} WITH ADMIN TRUE, INHERIT FALSE, SET TRUE`);
    await client.query(`GRANT ${owner} TO ${id(MIGRATOR)} WITH INHERIT FALSE, SET TRUE`);
    for (const database of ['postgres', 'template1']) {
      await client.query(`REVOKE CONNECT, TEMPORARY ON DATABASE ${database} FROM PUBLIC`);
      // The provisioner needs a database to stand in while it creates and drops others.
      if (database === 'postgres') await client.query(`GRANT CONNECT ON DATABASE postgres TO ${id(PROVISIONER)}`);
    }
  });
}
