import { migrate, ownerRole } from '@mad/postgres';
import { createLogger, readEnv } from '@mad/process';
import { provisionerMigrations } from './db/schema.ts';

/** Brings schema provisioner up to date; `url` is the migrator's login. Returns the names of the migrations that ran. */
export function migrateProvisioner(options: { url: string; log?: (message: string) => void }): Promise<string[]> {
  const { url, log } = options;
  const schema = 'provisioner';
  return migrate({ url, log, schema, ownerRole: ownerRole(schema), migrations: provisionerMigrations });
}

if (import.meta.main) {
  const logger = createLogger('provisioner');
  const { url } = readEnv(process.env, (r) => ({ url: r.url('PROVISIONER_MIGRATE_URL') }));
  const ran = await migrateProvisioner({ url, log: (message) => logger.info(message) });
  logger.info({ migrations: ran.length }, 'schema provisioner is up to date');
}
