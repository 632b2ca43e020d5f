import { createHash, randomBytes } from 'node:crypto';
import {
  clientOptions,
  createMetadataDatabase,
  grantDatabase,
  MIGRATOR,
  migrate,
  ownerRole,
  type MigrationClass,
} from '@mad/postgres';
import pg from 'pg';
import { testCluster, type TestCluster } from './cluster.ts';

/** One trail of migrations in the metadata database. */
export interface MigratedSchema {
  /** The service's name, which is its schema's. */
  schema: string;
  migrations: readonly MigrationClass[];
  /** Where the schema is not a service's: the role that owns it, e.g. `mad_reporting`. */
  ownerRole?: string;
}

/** A metadata database of one test file, cloned in milliseconds from a template migrated once. */
export interface TestDatabase {
  name: string;
  /** The URL of a role to this database, e.g. `mad_identity`, `mad_identity_system`, `mad_migrator`. */
  url(role: string): string;
  /** As `url`, through the run's pooler when it has one: for what a service reads and writes, not for its queue. */
  pooledUrl(role: string): string;
  /** The superuser's URL to this database: sees past row-level security. */
  adminUrl: string;
  /** Ends its sessions and drops it. */
  drop(): Promise<void>;
}

async function asAdmin<T>(cluster: TestCluster, fn: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(clientOptions(cluster.adminUrl));
  await client.connect();
  try {
    return await fn(client);
  } finally {
    await client.end();
  }
}

function templateName(services: readonly MigratedSchema[]): string {
  const content = services.map(({ schema, migrations }) => [
    schema,
    ...migrations.map(({ migrationName, checksum }) => `${migrationName}:${checksum}`),
  ]);
  return `mad_test_template_${createHash('sha256').update(JSON.stringify(content)).digest('hex').slice(0, 20)}`;
}

/** A schema of somebody else's (`reporting`) has a trail and no logins. */
function serviceNames(services: readonly MigratedSchema[]): string[] {
  return services.filter(({ ownerRole: owner }) => owner === undefined).map(({ schema }) => schema);
}

async function ensureTemplate(cluster: TestCluster, name: string, services: readonly MigratedSchema[]): Promise<void> {
  await asAdmin(cluster, async (client) => {
    // Workers that need the same template at the same time: one makes it.
    await client.query('SELECT pg_advisory_lock(hashtext($1))', [name]);
    const { rowCount } = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [name]);
    if (rowCount !== 0) return;
    const draft = `${name}_draft`;
    await client.query(`DROP DATABASE IF EXISTS ${draft} WITH (FORCE)`);
    await createMetadataDatabase(cluster.adminUrl, { database: draft, services: serviceNames(services) });
    for (const { schema, migrations, ownerRole: owner } of services) {
      const url = cluster.url(MIGRATOR, draft);
      await migrate({ url, schema, migrations, ownerRole: owner ?? ownerRole(schema) });
    }
    await client.query(`ALTER DATABASE ${draft} WITH ALLOW_CONNECTIONS false`);
    await client.query(`ALTER DATABASE ${draft} RENAME TO ${name}`);
  });
}

/**
 * A fresh metadata database with the given services' schemas, migrated. Drop it in `afterAll`; the run's end takes it
 * anyway.
 */
export async function metadataDatabase({ services }: { services: readonly MigratedSchema[] }): Promise<TestDatabase> {
  const cluster = testCluster();
  const template = templateName(services);
  await ensureTemplate(cluster, template, services);
  const name = `mad_test_${randomBytes(8).toString('hex')}`;
  await asAdmin(cluster, async (client) => {
    await client.query(`CREATE DATABASE ${name} TEMPLATE ${template} STRATEGY WAL_LOG`);
    await grantDatabase(client, name, serviceNames(services));
  });
  return {
    name,
    url: (role) => cluster.url(role, name),
    pooledUrl: (role) => cluster.pooledUrl(role, name),
    adminUrl: cluster.adminUrlTo(name),
    async drop() {
      await asAdmin(cluster, async (client) => {
        await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
      });
    },
  };
}
