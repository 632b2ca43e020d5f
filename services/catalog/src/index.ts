export { readCatalogConfig, type CatalogConfig, type CatalogDatabaseConfig } from './config.ts';
export { migrateCatalog, openCatalogDatabase } from './database.ts';
export { catalogEntities, catalogMigrations } from './db/schema.ts';
export { eraseOrganizationRows as eraseCatalogRows } from './erasure.ts';
export { catalogOrganizationRows, CATALOG_LEFT_OUT, countCatalogUsage } from './organization-rows.ts';
export { startCatalog, type RunningCatalog } from './start.ts';
