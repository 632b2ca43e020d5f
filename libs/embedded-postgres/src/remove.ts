import { realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { reapOrphan } from './orphan.ts';

/**
 * Deletes the server of `dataDir` with all its data; ends an orphan first.
 * Throws when the server is in use by a living process. Nothing there is no error.
 */
export async function removeEmbeddedPostgres(dataDir: string): Promise<void> {
  await reapOrphan(dataDir);
  // The files may live elsewhere behind a symbolic link (see initialize.ts).
  const pgData = await realpath(join(dataDir, 'data')).catch(() => undefined);
  if (pgData !== undefined) await rm(pgData, { recursive: true, force: true });
  await rm(dataDir, { recursive: true, force: true });
}
