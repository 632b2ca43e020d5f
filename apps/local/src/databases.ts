import { openIdentityDatabase, ensureFirstAdministrator, migrateIdentity } from '@mad/identity';
import { migrateCatalog } from '@mad/catalog';
import { migrateProvisioner } from '@mad/provisioner';
import { bootstrapServer, bootstrapTenantServer, MIGRATOR } from '@mad/postgres';
import { migrateReporting } from './reporting/schema.ts';
import { urlOf, type PostgresPlace } from './environment.ts';
import type { Secrets } from './secrets.ts';

/** What a step tells of itself, for people. */
export type Log = (message: string) => void;

/**
 * Prepares a server for the metadata database and for the databases of these tenant schemas: roles, schemas, who may
 * connect. Repeatable.
 */
export async function bootstrap(
  adminUrl: string,
  { database }: PostgresPlace,
  { passwords }: Secrets,
  tenantSchemas: readonly string[],
): Promise<void> {
  const { services, migrator, provisionerAdmin } = passwords;
  await bootstrapServer(adminUrl, { services, migratorPassword: migrator, database });
  for (const schema of tenantSchemas) {
    const tenantServer = { provisionerPassword: provisionerAdmin, migratorPassword: migrator, schema };
    await bootstrapTenantServer(adminUrl, tenantServer);
  }
}

/** The migrator's URL of the metadata database. Holds the password. */
export const migratorUrl = (postgres: PostgresPlace, { passwords }: Secrets): string =>
  urlOf(postgres, MIGRATOR, passwords.migrator);

/**
 * Brings every schema of the metadata database to the newest version; `url` is the migrator's. Answers the migrations
 * that ran, by schema.
 */
export async function migrateMetadata(url: string, log: Log): Promise<Record<string, string[]>> {
  const options = { url, log };
  return {
    identity: await migrateIdentity(options),
    catalog: await migrateCatalog(options),
    provisioner: await migrateProvisioner(options),
    // Last: its views read the others' tables.
    reporting: await migrateReporting(options),
  };
}

/** Makes the first administrator unless there is one; the URLs are identity's own. Answers whether it was made now. */
export async function seedAdministrator(
  urls: { url: string; systemUrl: string },
  administrator: Secrets['administrator'],
): Promise<boolean> {
  const database = await openIdentityDatabase(urls);
  try {
    return (await ensureFirstAdministrator(database, administrator)).created;
  } finally {
    await database.close();
  }
}
