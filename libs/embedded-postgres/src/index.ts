export { startEmbeddedPostgres } from './start.ts';
export type { EmbeddedPostgres, EmbeddedPostgresOptions } from './start.ts';
export { reapOrphan } from './orphan.ts';
export { removeEmbeddedPostgres } from './remove.ts';
export { superuserUrl } from './initialize.ts';
export { readPostgresMajor } from './major-setting.ts';
export { isInstalled, PG_MAJORS } from './binaries.ts';
export type { PgMajor } from './binaries.ts';
