import { createHash } from 'node:crypto';
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { isDeepStrictEqual } from 'node:util';
import { createZstdDecompress } from 'node:zlib';
import { ArchiveError } from './archive-error.ts';
import {
  FRAME,
  FRAME_PREFIX_BYTES,
  FrameCipher,
  framePrefix,
  headerLength,
  parseHeader,
  PREFIX_BYTES,
  type ArchiveHeader,
  type ArchiveManifest,
  type ArchivePlan,
  type PlannedTable,
  type TableTotals,
} from './archive-format.ts';

const OUTPUT_BYTES = 128 * 1024;

/** Which archive is meant to be read. */
export interface Expected {
  archiveId: string;
  orgId: string;
}

export interface TableOptions {
  /** Told how many bytes of rows came out so far. */
  onProgress?: (rawBytes: number) => void;
  signal?: AbortSignal;
}

/** Reads an archive from its beginning to its end: `plan`, then `table` for each of the plan's, then `finish`. */
export class ArchiveReader {
  readonly header: ArchiveHeader;
  readonly plan: ArchivePlan;
  readonly #bytes: ByteReader;
  readonly #cipher: FrameCipher;
  readonly #totals: TableTotals[] = [];
  #rawBytes = 0;

  private constructor(header: ArchiveHeader, plan: ArchivePlan, bytes: ByteReader, cipher: FrameCipher) {
    this.header = header;
    this.plan = plan;
    this.#bytes = bytes;
    this.#cipher = cipher;
  }

  /**
   * Reads the header and the plan. `secretOf` gives the key the header names. Throws ArchiveError; so does everything
   * below.
   */
  static async open(
    source: AsyncIterable<Buffer>,
    expected: Expected,
    secretOf: (header: ArchiveHeader) => Promise<Buffer>,
  ): Promise<ArchiveReader> {
    const bytes = new ByteReader(source);
    const prefix = await bytes.take(PREFIX_BYTES);
    const text = await bytes.take(headerLength(prefix));
    const header = parseHeader(text);
    if (header.archive_id !== expected.archiveId || header.org_id !== expected.orgId) {
      throw new ArchiveError('ARCHIVE_SWAPPED', `it is the archive ${header.archive_id.slice(0, 36)}`);
    }
    const cipher = new FrameCipher(await secretOf(header), Buffer.concat([prefix, text]), header);
    const first = await readFrame(bytes, cipher);
    if (first.type !== FRAME.plan) throw misplaced();
    return new ArchiveReader(header, JSON.parse(first.plain.toString()) as ArchivePlan, bytes, cipher);
  }

  /**
   * Writes the rows of the plan's next table out as COPY reads them. What reached `into` counts for nothing until `finish`
   * has returned.
   */
  async table(into: Writable, { onProgress, signal }: TableOptions = {}): Promise<TableTotals> {
    const planned = this.plan.tables[this.#totals.length];
    if (planned === undefined) throw new RangeError('the plan has no further table');
    let end: Buffer | undefined;
    const content = createHash('sha256');
    let rawBytes = 0;
    const frames = async function* (this: ArchiveReader): AsyncGenerator<Buffer> {
      for (;;) {
        const { type, plain } = await readFrame(this.#bytes, this.#cipher);
        if (type === FRAME.tableEnd) {
          end = plain;
          return;
        }
        if (type !== FRAME.rows) throw misplaced();
        yield plain;
      }
    };
    const before = this.#rawBytes;
    await pipeline(
      frames.call(this),
      createZstdDecompress({ chunkSize: OUTPUT_BYTES }),
      async function* (chunks: AsyncIterable<Buffer>) {
        for await (const chunk of chunks) {
          content.update(chunk);
          rawBytes += chunk.length;
          onProgress?.(before + rawBytes);
          yield chunk;
        }
      },
      into,
      { signal },
    );
    const totals = JSON.parse(end!.toString()) as TableTotals;
    const found = { raw_bytes: rawBytes, content_sha256: content.digest('hex'), ...nameOf(planned) };
    if (!isDeepStrictEqual({ ...found, rows: totals.rows }, totals)) {
      throw new ArchiveError('ARCHIVE_ALTERED', `the rows of ${planned.name} are not those that were written`);
    }
    this.#rawBytes += rawBytes;
    this.#totals.push(totals);
    return totals;
  }

  /** Reads the manifest. Throws when the archive does not end there or tells another story than what was read. */
  async finish(): Promise<ArchiveManifest> {
    const { type, plain } = await readFrame(this.#bytes, this.#cipher);
    if (type !== FRAME.manifest) throw misplaced();
    const manifest = JSON.parse(plain.toString()) as ArchiveManifest;
    const said = manifest.tables.map(({ schema, name, rows, raw_bytes, content_sha256 }) => {
      return { schema, name, rows, raw_bytes, content_sha256 };
    });
    if (!isDeepStrictEqual(said, this.#totals)) throw misplaced();
    if (!(await this.#bytes.ended())) throw new ArchiveError('ARCHIVE_ALTERED', 'something follows its end');
    return manifest;
  }
}

const nameOf = ({ schema, name }: PlannedTable): Pick<TableTotals, 'schema' | 'name'> => ({ schema, name });

function misplaced(): ArchiveError {
  return new ArchiveError('ARCHIVE_ALTERED', 'its parts are not in the order of its plan');
}

async function readFrame(bytes: ByteReader, cipher: FrameCipher): Promise<{ type: number; plain: Buffer }> {
  const { length, type } = framePrefix(await bytes.take(FRAME_PREFIX_BYTES));
  return { type, plain: cipher.open(type, await bytes.take(length)) };
}

/** A stream of bytes, taken in the lengths that are asked for. */
class ByteReader {
  readonly #source: AsyncIterator<Buffer>;
  #held: Buffer[] = [];
  #length = 0;

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** Throws ARCHIVE_TRUNCATED when there are fewer. */
  async take(length: number): Promise<Buffer> {
    while (this.#length < length) {
      if (!(await this.#more())) throw new ArchiveError('ARCHIVE_TRUNCATED', 'it ends before its end');
    }
    const all = this.#held.length === 1 ? this.#held[0]! : Buffer.concat(this.#held);
    this.#held = [all.subarray(length)];
    this.#length -= length;
    return all.subarray(0, length);
  }

  async ended(): Promise<boolean> {
    return this.#length === 0 && !(await this.#more());
  }

  async #more(): Promise<boolean> {
    for (;;) {
      const { value, done } = await this.#source.next();
      if (done) return false;
      if (value.length === 0) continue;
      this.#held.push(value);
      this.#length += value.length;
      return true;
    }
  }
}
