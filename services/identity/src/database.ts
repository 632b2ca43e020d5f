import { migrate, openDatabase, type ConstraintMessages, type Database } from '@mad/postgres';
import type { Logger, Metrics } from '@mad/process';
import type { IdentityDatabaseConfig } from './config.ts';
import { identityEntities, identityMigrations } from './db/schema.ts';

/** What callers are told where a value meets a constraint: the request's field and what is wrong with it. */
export const CONSTRAINT_MESSAGES: ConstraintMessages = {
  organizations_name_key: ['name', 'is already taken'],
  organizations_slug_key: ['slug', 'is already taken'],
  roles_org_id_name_key: ['name', 'is already taken'],
  users_email_check: ['email', 'is not an e-mail address'],
};

/** Opens identity's schema. Throws when row-level security would not bind the logins. */
export function openIdentityDatabase(
  config: Pick<IdentityDatabaseConfig, 'url' | 'systemUrl'> & Partial<IdentityDatabaseConfig>,
  logger?: Logger,
  metrics?: Metrics,
): Promise<Database> {
  return openDatabase({
    ...config,
    schema: 'identity',
    entities: identityEntities,
    applicationName: 'mad-identity',
    logger,
    metrics,
  });
}

/** Brings schema identity up to date; `url` is the migrator's login. Returns the names of the migrations that ran. */
export function migrateIdentity(options: { url: string; log?: (message: string) => void }): Promise<string[]> {
  return migrate({ ...options, ownerRole: 'mad_identity_owner', schema: 'identity', migrations: identityMigrations });
}
