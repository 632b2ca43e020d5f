import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { constants, createZstdCompress } from 'node:zlib';
import {
  FRAME,
  FrameCipher,
  headerBytes,
  ROWS_BYTES,
  type ArchivedTable,
  type ArchiveHeader,
  type ArchiveManifest,
  type ArchivePlan,
  type PlannedTable,
  type SequenceValue,
} from './archive-format.ts';

/** The fastest: Postgres writes slower than this compresses, and rows of text shrink well anyhow. */
const LEVEL = 1;
const OUTPUT_BYTES = 128 * 1024;

/** Rows on their way out of Postgres; their number is known at the end. */
export type RowStream = Readable & { rowCount: number };

/** What is archived. */
export interface ArchiveSource {
  plan: ArchivePlan;
  rows(table: PlannedTable): RowStream;
  /** Asked for last: by then no row can hold a number beyond them. */
  sequences(): Promise<SequenceValue[]>;
}

/** What was written. */
export interface Written {
  manifest: ArchiveManifest;
  sizeBytes: number;
  /** Of the whole object. */
  sha256: string;
}

export interface ArchiveWriterOptions {
  header: ArchiveHeader;
  /** The key the header names. */
  secret: Buffer;
  source: ArchiveSource;
  /** Told how many bytes of rows went in so far. */
  onProgress?: (rawBytes: number) => void;
}

/**
 * The archive piece by piece; what it holds in memory does not grow with the tables. Returns what it wrote.
 */
export async function* writeArchive(options: ArchiveWriterOptions): AsyncGenerator<Buffer, Written> {
  const { header, secret, source, onProgress } = options;
  const { plan } = source;
  const beginning = headerBytes(header);
  const cipher = new FrameCipher(secret, beginning, header);
  const whole = createHash('sha256');
  let sizeBytes = 0;
  const sent = (piece: Buffer): Buffer => {
    whole.update(piece);
    sizeBytes += piece.length;
    return piece;
  };
  yield sent(beginning);
  yield sent(cipher.seal(FRAME.plan, json(plan)));

  const tables: ArchiveManifest['tables'] = [];
  let before = 0;
  for (const table of plan.tables) {
    const part = createHash('sha256');
    const content = createHash('sha256');
    const began = sizeBytes;
    let rawBytes = 0;
    const rows = source.rows(table);
    const compressed = createZstdCompress({
      chunkSize: OUTPUT_BYTES,
      params: { [constants.ZSTD_c_compressionLevel]: LEVEL },
    });
    const feeding = pipeline(
      rows,
      async function* (chunks: AsyncIterable<Buffer>) {
        for await (const chunk of chunks) {
          content.update(chunk);
          rawBytes += chunk.length;
          onProgress?.(before + rawBytes);
          yield chunk;
        }
      },
      compressed,
    );
    // Reported where it is awaited; the loop below ends by the same failure.
    feeding.catch(() => undefined);
    for await (const bytes of inPieces(compressed, ROWS_BYTES)) {
      const frame = cipher.seal(FRAME.rows, bytes);
      part.update(frame);
      yield sent(frame);
    }
    await feeding;
    before += rawBytes;
    const { schema, name } = table;
    const totals = { schema, name, rows: rows.rowCount, raw_bytes: rawBytes, content_sha256: content.digest('hex') };
    const end = cipher.seal(FRAME.tableEnd, json(totals));
    part.update(end);
    yield sent(end);
    const archived: ArchivedTable = { ...totals, size_bytes: sizeBytes - began, part_sha256: part.digest('hex') };
    tables.push({ ...table, ...archived });
  }
  const manifest: ArchiveManifest = { ...plan, tables, sequences: await source.sequences() };
  yield sent(cipher.seal(FRAME.manifest, json(manifest)));
  return { manifest, sizeBytes, sha256: whole.digest('hex') };
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

/** The same bytes in pieces of at least this size; the last one may be shorter. */
async function* inPieces(source: AsyncIterable<Buffer>, size: number): AsyncGenerator<Buffer> {
  let held: Buffer[] = [];
  let length = 0;
  for await (const bytes of source) {
    held.push(bytes);
    length += bytes.length;
    if (length < size) continue;
    yield Buffer.concat(held);
    held = [];
    length = 0;
  }
  if (length > 0) yield Buffer.concat(held);
}
