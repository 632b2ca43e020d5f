import { readdir, realpath, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { reapOrphan } from './orphan.ts';

/**
 * Deletes the server of `dataDir` with all its data; ends an orphan first.
 * Throws when the server is in use by a living process. Nothing there is no error.
 */
export async function removeEmbeddedPostgres(dataDir: string): Promise<void> {
  await reapOrphan(dataDir);
  // The files may live elsewhere behind a symbolic link (see initialize.ts).
  const pgData = await realpath(join(dataDir, 'data')).catch(() => undefined);
  if (pgData !== undefined) {
    // And with them what was kept of them: the archive of the log, and what a recovery that was broken off left.
    const beside = await readdir(dirname(pgData));
    const theirs = beside.filter((name) => name.startsWith(`${basename(pgData)}-`));
    for (const name of theirs) await rm(join(dirname(pgData), name), { recursive: true, force: true });
    await rm(pgData, { recursive: true, force: true });
  }
  await rm(dataDir, { recursive: true, force: true });
}
