import { createHash, randomUUID } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { link, mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { Disk, type DriveDirectory, type DriveFile } from 'flydrive';
import { FSDriver } from 'flydrive/drivers/fs';
import { checkKey, ObjectNotFoundError, type ObjectStore } from './object-store.ts';

const DRAFTS = 'drafts';

/** How the drafts of one key begin, so that deleting the key finds what a dead writer left. */
const draftsOf = (key: string): string => createHash('sha256').update(key).digest('hex');

/**
 * Objects as files below a folder, which is made when missing. All of it must be one file system, and one with hard links: an
 * object is written aside, and a link gives it its name when it is whole and on the disk.
 */
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

  const putIfAbsent = async (key: string, content: Readable): Promise<boolean> => {
    // It may fail before anybody reads it, which is told to whoever does.
    content.on('error', () => undefined);
    const path = pathOf(checkKey(key));
    const draft = pathOf(`${DRAFTS}/${draftsOf(key)}-${randomUUID()}`);
    try {
      if (await disk.exists(key)) {
        // Its writer may have died before it did.
        await syncFolder(dirname(path));
        return false;
      }
      await makeFolder(dirname(path));
      await mkdir(dirname(draft), { recursive: true });
      await pipeline(content, createWriteStream(draft, { flags: 'wx', mode: 0o600, flush: true }));
      // Of several writers one makes the link. A rename would take the name from another, and a copy could end half-way.
      const isFirst = await link(draft, path).then(
        () => true,
        async (error: unknown) => {
          if (codeOf(error) === 'EEXIST' && (await disk.exists(key))) return false;
          throw error;
        },
      );
      await syncFolder(dirname(path));
      return isFirst;
    } finally {
      content.destroy();
      await rm(draft, { force: true }).catch(() => undefined);
    }
  };

  return {
    putIfAbsent: (key, content) => putIfAbsent(key, Readable.from([content])),
    putStreamIfAbsent: putIfAbsent,
    async get(key) {
      await requireObject(key);
      // The driver's own gives an empty object as 64 KiB of the process's memory.
      return readFile(pathOf(key));
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
      const drafts = draftsOf(checkKey(key));
      // First: who has no draft any more cannot publish it behind our back.
      const folder = pathOf(DRAFTS);
      const names = await readdir(folder).catch((error: unknown) => {
        if (codeOf(error) === 'ENOENT') return [];
        throw error;
      });
      for (const name of names) {
        // In older stores the drafts of a key are in a folder.
        if (name.startsWith(drafts)) await rm(`${folder}/${name}`, { recursive: true, force: true });
      }
      await disk.delete(key);
    },
  };
}

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

/** Makes a folder with all that is missing above it, on the disk. */
async function makeFolder(folder: string): Promise<void> {
  const first = await mkdir(folder, { recursive: true });
  if (first === undefined) return;
  for (let made = folder; made.length >= first.length; made = dirname(made)) await syncFolder(dirname(made));
}

/** Has the names in a folder on the disk. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
