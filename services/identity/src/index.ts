export { ensureFirstAdministrator } from './administrator.ts';
export { readIdentityConfig, type IdentityConfig, type IdentityDatabaseConfig } from './config.ts';
export { migrateIdentity, openIdentityDatabase } from './database.ts';
export { identityEntities, identityMigrations } from './db/schema.ts';
export { eraseOrganizationRows as eraseIdentityRows } from './erasure.ts';
export { identityOrganizationRows, IDENTITY_LEFT_OUT, settleIdentityRows } from './organization-rows.ts';
export { startIdentity, type RunningIdentity } from './start.ts';
