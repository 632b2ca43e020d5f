import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

/**
 * Writes pieces into a file, beside it first: what breaks leaves what was there before. Returns how many bytes it has.
 */
export async function saveFile(path: string, pieces: AsyncIterable<Uint8Array>): Promise<number> {
  const draft = `${path}.${randomBytes(4).toString('hex')}.part`;
  try {
    const file = createWriteStream(draft, { flags: 'wx' });
    await pipeline(Readable.from(pieces, { objectMode: false }), file);
    await rename(draft, path);
    return file.bytesWritten;
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}
