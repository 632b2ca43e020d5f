export { startEmbeddedPostgres } from './start.ts';
export type { EmbeddedPostgres, EmbeddedPostgresOptions } from './start.ts';
export { reapOrphan } from './orphan.ts';
export { removeEmbeddedPostgres } from './remove.ts';
export { superuserUrl } from './initialize.ts';
export { pgMajor } from './binaries.ts';
