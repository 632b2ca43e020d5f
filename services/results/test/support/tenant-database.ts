import { createHash, randomBytes } from 'node:crypto';
import { clientOptions, migrate, type MigrationClass } from '@mad/postgres';
import { testCluster } from '@mad/testing';
import pg from 'pg';
import { resultsMigrations } from '../../src/index.ts';

const OWNER = 'mad_results_owner';
const APP = 'mad_results_app';
const MIGRATOR = 'mad_migrator';

/** One organization's database, as the provisioner would have made it. */
export interface TenantDatabase {
  name: string;
  user: string;
  password: string;
  /** As the organization's login. */
  url: string;
  /** As the superuser. */
  adminUrl: string;
  drop(): Promise<void>;
}

export async function onServer<T>(url: string, fn: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(clientOptions(url));
  await client.connect();
  try {
    return await fn(client);
  } finally {
    await client.end();
  }
}

/** An empty database with the schema, owned by its owner and with the rights that the provisioner's template gives. */
async function prepare(name: string): Promise<void> {
  const cluster = testCluster();
  await onServer(cluster.adminUrl, async (client) => {
    await client.query(`CREATE DATABASE ${name} TEMPLATE template0 STRATEGY WAL_LOG`);
    await client.query(`REVOKE ALL ON DATABASE ${name} FROM PUBLIC`);
    await client.query(`GRANT CONNECT ON DATABASE ${name} TO ${MIGRATOR}`);
    await client.query(`GRANT CREATE ON DATABASE ${name} TO ${OWNER}`);
  });
  await onServer(cluster.adminUrlTo(name), (client) =>
    client.query(`
      CREATE SCHEMA results AUTHORIZATION ${OWNER};
      SET ROLE ${OWNER};
      GRANT USAGE ON SCHEMA results TO ${APP};
      ALTER DEFAULT PRIVILEGES IN SCHEMA results GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO ${APP};
      ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;`),
  );
}

async function ensureTemplate(migrations: readonly MigrationClass[]): Promise<string> {
  const checksum = createHash('sha256')
    .update(migrations.map((m) => m.checksum).join())
    .digest('hex');
  const name = `mad_test_results_${checksum.slice(0, 16)}`;
  const cluster = testCluster();
  await onServer(cluster.adminUrl, async (client) => {
    await client.query('SELECT pg_advisory_lock(hashtext($1))', [name]);
    const { rowCount } = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [name]);
    if (rowCount !== 0) return;
    const draft = `${name}_draft`;
    await client.query(`DROP DATABASE IF EXISTS ${draft} WITH (FORCE)`);
    await prepare(draft);
    await migrate({ url: cluster.url(MIGRATOR, draft), ownerRole: OWNER, schema: 'results', migrations });
    await client.query(`ALTER DATABASE ${draft} RENAME TO ${name}`);
  });
  return name;
}

/** A database with a login of its own, cloned from a template that has these migrations. */
export async function tenantDatabase(
  migrations: readonly MigrationClass[] = resultsMigrations,
): Promise<TenantDatabase> {
  const cluster = testCluster();
  const name = `mad_test_${randomBytes(8).toString('hex')}`;
  const user = `${name}_a`;
  const password = randomBytes(16).toString('hex');
  const template = await ensureTemplate(migrations);
  await onServer(cluster.adminUrl, async (client) => {
    await client.query(`CREATE DATABASE ${name} TEMPLATE ${template} STRATEGY WAL_LOG`);
    await client.query(`REVOKE ALL ON DATABASE ${name} FROM PUBLIC`);
    await client.query(`CREATE ROLE ${user} LOGIN PASSWORD '${password}' IN ROLE ${APP}`);
    await client.query(`GRANT CONNECT ON DATABASE ${name} TO ${user}, ${MIGRATOR}`);
  });
  const url = new URL(cluster.adminUrlTo(name));
  url.username = user;
  url.password = password;
  return {
    name,
    user,
    password,
    url: url.href,
    adminUrl: cluster.adminUrlTo(name),
    async drop() {
      await onServer(cluster.adminUrl, async (client) => {
        await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
        await client.query(`DROP ROLE IF EXISTS ${user}`);
      });
    },
  };
}
