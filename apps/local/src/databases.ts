import { openIdentityDatabase, ensureFirstAdministrator, migrateIdentity } from '@mad/identity';
import { migrateCatalog } from '@mad/catalog';
import { migrateProvisioner } from '@mad/provisioner';
import { bootstrapServer, bootstrapTenantServer, MIGRATOR } from '@mad/postgres';
import { urlOf, type PostgresPlace } from './environment.ts';
import type { Secrets } from './secrets.ts';

/** What a step tells of itself, for people. */
export type Log = (message: string) => void;

/** Prepares a server for the metadata database and for tenants' databases: roles, schemas, who may connect. Repeatable. */
export async function bootstrap(adminUrl: string, { database }: PostgresPlace, { passwords }: Secrets): Promise<void> {
  const { services, migrator, provisionerAdmin } = passwords;
  await bootstrapServer(adminUrl, { services, migratorPassword: migrator, database });
  const tenantServer = { provisionerPassword: provisionerAdmin, migratorPassword: migrator, schema: 'results' };
  await bootstrapTenantServer(adminUrl, tenantServer);
}

/** Brings every schema of the metadata database to the newest version. Answers the migrations that ran, by schema. */
export async function migrateMetadata(
  postgres: PostgresPlace,
  { passwords }: Secrets,
  log: Log,
): Promise<Record<string, string[]>> {
  const options = { url: urlOf(postgres, MIGRATOR, passwords.migrator), log };
  return {
    identity: await migrateIdentity(options),
    catalog: await migrateCatalog(options),
    provisioner: await migrateProvisioner(options),
  };
}

/** Makes the first administrator unless there is one. */
export async function seedAdministrator(postgres: PostgresPlace, secrets: Secrets): Promise<void> {
  const { app, system } = secrets.passwords.services.identity;
  const database = await openIdentityDatabase({
    url: urlOf(postgres, 'mad_identity', app),
    systemUrl: urlOf(postgres, 'mad_identity_system', system),
  });
  try {
    await ensureFirstAdministrator(database, secrets.administrator);
  } finally {
    await database.close();
  }
}
