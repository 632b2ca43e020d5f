import { migrate, openDatabase, type ConstraintMessages, type Database } from '@mad/postgres';
import type { Logger, Metrics } from '@mad/process';
import type { CatalogDatabaseConfig } from './config.ts';
import { catalogEntities, catalogMigrations } from './db/schema.ts';

/** What callers are told where a value meets a constraint: the request's field and what is wrong with it. */
export const CONSTRAINT_MESSAGES: ConstraintMessages = {
  molecule_sets_org_id_name_key: ['name', 'is already taken'],
  pipelines_org_id_name_key: ['name', 'is already taken'],
};

/** Opens catalog's schema. Throws when row-level security would not bind the logins. */
export function openCatalogDatabase(
  config: Pick<CatalogDatabaseConfig, 'url' | 'systemUrl'> & Partial<CatalogDatabaseConfig>,
  logger?: Logger,
  metrics?: Metrics,
): Promise<Database> {
  return openDatabase({
    ...config,
    schema: 'catalog',
    entities: catalogEntities,
    applicationName: 'mad-catalog',
    logger,
    metrics,
  });
}

/** Brings schema catalog up to date; `url` is the migrator's login. Returns the names of the migrations that ran. */
export function migrateCatalog(options: { url: string; log?: (message: string) => void }): Promise<string[]> {
  return migrate({ ...options, ownerRole: 'mad_catalog_owner', schema: 'catalog', migrations: catalogMigrations });
}
