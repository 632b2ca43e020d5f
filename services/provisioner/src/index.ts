export { ArchiveError, type ArchiveFault } from './backups/archive-error.ts';
export {
  archiveMetadata,
  KEYS_FOLDER,
  lastMetadataArchive,
  listMetadataArchives,
  loadMetadata,
  rewriteKeys,
  METADATA_FOLDER,
  type MetadataSchema,
} from './backups/metadata.ts';
export {
  beginOrganizationRestore,
  endOrganizationRestore,
  noteOwnerRestored,
  noteRestoreFailed,
  type OrganizationRestore,
} from './backups/organization-restore.ts';
export {
  provisionerOrganizationRows,
  PROVISIONER_LEFT_OUT,
  pruneProvisionerRows,
  settleProvisionerRows,
} from './backups/organization-rows.ts';
export { archivable, archivePast, type PastOptions } from './backups/past.ts';
export type { BackupPolicy } from './backups/schedule.ts';
export { signErasure } from './erasure/signature.ts';
export { erasuresToReplay, replayErasure } from './erasure/replay.ts';
export { parseMasterKeys } from './secrets/local-keys.ts';
export type { MasterKeys } from './secrets/master-keys.ts';
export {
  parseServers,
  readMasterKeys,
  readMetadataBackupPolicy,
  readProvisionerConfig,
  readTenantSchemas,
  type ProvisionerConfig,
} from './config.ts';
export { provisionerEntities, provisionerMigrations } from './db/schema.ts';
export { migrateProvisioner } from './migrate.ts';
export type { ServerRegistration } from './servers/registration.ts';
export { startProvisioner } from './start.ts';
