import { createHash, randomUUID } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { Disk, type DriveDirectory, type DriveFile } from 'flydrive';
import { FSDriver } from 'flydrive/drivers/fs';
import { checkKey, ObjectNotFoundError, type ObjectStore } from './object-store.ts';

/** Where the drafts of streamed content of one key are, so that deleting the key finds what a dead writer left. */
const draftsOf = (key: string): string => `drafts/${createHash('sha256').update(key).digest('hex')}`;

/** Objects as files below a folder, which is made when missing. */
export function fileStore(folder: URL): ObjectStore {
  const disk = new Disk(new FSDriver({ location: folder, visibility: 'private' }));
  const requireObject = async (key: string): Promise<void> => {
    if (!(await disk.exists(checkKey(key)))) throw new ObjectNotFoundError(key);
  };
  /** What is right below a folder; nothing when there is none. */
  const entriesOf = async (folder: string): Promise<(DriveFile | DriveDirectory)[]> => {
    const entries: (DriveFile | DriveDirectory)[] = [];
    let paginationToken: string | undefined;
    do {
      const page = await disk.listAll(folder, { paginationToken }).catch((error: unknown) => {
        if ((error as { cause?: { code?: string } }).cause?.code === 'ENOENT') return undefined;
        throw error;
      });
      entries.push(...(page?.objects ?? []));
      paginationToken = page?.paginationToken;
    } while (paginationToken !== undefined);
    return entries;
  };
  const pathOf = (key: string): string => fileURLToPath(new URL(key, `${folder.href.replace(/\/$/, '')}/`));
  return {
    async putIfAbsent(key, content) {
      if (await disk.exists(checkKey(key))) return false;
      // Written aside and renamed: whoever dies while writing leaves no half object under the key.
      const draft = `drafts/${randomUUID()}`;
      try {
        await disk.put(draft, content);
        await disk.move(draft, key);
      } catch (error) {
        await disk.delete(draft).catch(() => undefined);
        throw error;
      }
      return true;
    },
    async putStreamIfAbsent(key, content) {
      // It may fail before anybody reads it, which is told to whoever does.
      content.on('error', () => undefined);
      if (await disk.exists(checkKey(key))) {
        content.destroy();
        return false;
      }
      const draft = `${draftsOf(key)}/${randomUUID()}`;
      const path = pathOf(draft);
      try {
        await mkdir(dirname(path), { recursive: true });
        await pipeline(content, createWriteStream(path, { mode: 0o600, flush: true }));
        await disk.move(draft, key);
      } finally {
        await disk.delete(draft).catch(() => undefined);
      }
      return true;
    },
    async get(key) {
      await requireObject(key);
      return disk.getBytes(key);
    },
    async getRange(key, offset, length) {
      await requireObject(key);
      const file = await open(pathOf(key));
      try {
        const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
        return buffer.subarray(0, bytesRead);
      } finally {
        await file.close();
      }
    },
    async stream(key): Promise<Readable> {
      await requireObject(key);
      return disk.getStream(key);
    },
    exists: async (key) => disk.exists(checkKey(key)),
    async list(below) {
      const entries = await entriesOf(checkKey(below));
      return entries.flatMap((entry) => (entry.isFile ? [entry.key] : [])).sort();
    },
    async *walk(folder) {
      // Level by level: the driver's own listing of everything holds it all in memory.
      const below = [checkKey(folder)];
      for (let next = below.pop(); next !== undefined; next = below.pop()) {
        for (const entry of await entriesOf(next)) {
          if (entry.isFile) yield entry.key;
          else below.push(entry.prefix);
        }
      }
    },
    async delete(key) {
      await disk.delete(checkKey(key));
      await disk.deleteAll(draftsOf(key));
    },
  };
}
