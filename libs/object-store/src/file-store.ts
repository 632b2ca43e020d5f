import { randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import { Disk } from 'flydrive';
import { FSDriver } from 'flydrive/drivers/fs';
import { checkKey, ObjectNotFoundError, type ObjectStore } from './object-store.ts';

/** Objects as files below a folder, which is made when missing. */
export function fileStore(folder: URL): ObjectStore {
  const disk = new Disk(new FSDriver({ location: folder, visibility: 'private' }));
  const requireObject = async (key: string): Promise<void> => {
    if (!(await disk.exists(checkKey(key)))) throw new ObjectNotFoundError(key);
  };
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
    async get(key) {
      await requireObject(key);
      return disk.getBytes(key);
    },
    async stream(key): Promise<Readable> {
      await requireObject(key);
      return disk.getStream(key);
    },
    exists: async (key) => disk.exists(checkKey(key)),
    async delete(key) {
      await disk.delete(checkKey(key));
    },
  };
}
