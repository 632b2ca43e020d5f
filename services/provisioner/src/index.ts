export { parseServers, readProvisionerConfig, readTenantSchemas, type ProvisionerConfig } from './config.ts';
export { provisionerEntities, provisionerMigrations } from './db/schema.ts';
export { migrateProvisioner } from './migrate.ts';
export type { ServerRegistration } from './servers/registration.ts';
export { startProvisioner } from './start.ts';
