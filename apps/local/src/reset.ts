import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { removeEmbeddedPostgres } from '@mad/embedded-postgres';
import { MARKER } from './start.ts';

/** Deletes the data of the local system in `home`. Refuses a folder that holds none, and one that is in use. */
export async function reset(home: string): Promise<void> {
  if (!existsSync(join(home, MARKER))) throw new Error(`${home} holds no local system; nothing was deleted`);
  await removeEmbeddedPostgres(join(home, 'postgres'));
  // The marker last: a reset cut off halfway can be repeated.
  const others = (await readdir(home)).filter((name) => name !== MARKER);
  for (const name of others) await rm(join(home, name), { recursive: true, force: true });
  await rm(home, { recursive: true, force: true });
}
