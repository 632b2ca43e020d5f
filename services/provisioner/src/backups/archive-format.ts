import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto';
import { ArchiveError } from './archive-error.ts';

/*
 * An archive is one object:
 *
 *   "MADARCH1", length of the header (4 bytes), header (JSON, in clear)
 *   frames: length (4 bytes), type (1 byte), ciphertext, tag (16 bytes)
 *
 * first a PLAN frame (JSON: what is coming), then for every table of the plan, in its order, ROWS frames and a TABLE_END
 * frame (JSON: counts and checksums), last a MANIFEST frame (JSON: the plan with what became of it). The ROWS frames of
 * a table are one zstd stream of COPY's text format.
 *
 * Every frame is AES-256-GCM under a key of the archive's own: HKDF of the organization's data key with a random salt,
 * over the whole header. Nonce and additional data hold the frame's number, the additional data its type and the
 * archive's id as well: what is changed, moved, left out, repeated or taken from another archive does not open.
 */

const MAGIC = 'MADARCH1';
export const PREFIX_BYTES = MAGIC.length + 4;
export const FRAME_PREFIX_BYTES = 5;
const TAG_BYTES = 16;
const MAX_HEADER_BYTES = 64 * 1024;
/** A changed length must not ask for all the memory there is; plans of 100,000 partitions fit. */
const MAX_FRAME_BYTES = 64 * 1024 * 1024;
/** Compressed bytes in one ROWS frame. */
export const ROWS_BYTES = 256 * 1024;

export const FRAME = { plan: 1, rows: 2, tableEnd: 3, manifest: 4 } as const;
export type FrameType = (typeof FRAME)[keyof typeof FRAME];

/** What an archive says of itself before it is opened. */
export interface ArchiveHeader {
  archive_id: string;
  /** Whose; the nil UUID for the metadata database. */
  org_id: string;
  kind: 'tenant' | 'metadata';
  /** Which of its keys: of the organization's data keys, or of the master keys. */
  key_version: number;
  /** The archive's own key, sealed under the master key; for metadata only. Base64. */
  sealed_key?: string;
  /** 32 random bytes, base64. */
  salt: string;
  cipher: 'aes-256-gcm';
  compression: 'zstd';
  rows: 'copy-text';
}

/** One migration that the archived schema had. */
export interface ArchivedMigration {
  name: string;
  checksum: string;
}

export interface ArchivedSchema {
  name: string;
  version: string;
  migrations: ArchivedMigration[];
  sequences: string[];
}

export interface PlannedTable {
  schema: string;
  name: string;
  columns: string[];
  partition_of: string;
  bound: string;
}

/** What is coming, known when the snapshot was taken. */
export interface ArchivePlan {
  snapshot_at: string;
  /** The tenant's; 0 for metadata. */
  generation: number;
  postgres: string;
  schemas: ArchivedSchema[];
  /** Each after those it refers to. */
  tables: PlannedTable[];
}

/** What became of one table. */
export interface TableTotals {
  schema: string;
  name: string;
  rows: number;
  /** Bytes as Postgres wrote them out, and their checksum: the same again when the restored table is written out. */
  raw_bytes: number;
  content_sha256: string;
}

/** The table's part of the archive as well. */
export interface ArchivedTable extends TableTotals {
  size_bytes: number;
  part_sha256: string;
}

export interface SequenceValue {
  schema: string;
  name: string;
  last_value: string;
  is_called: boolean;
}

/** The plan with what became of it. */
export interface ArchiveManifest extends Omit<ArchivePlan, 'tables'> {
  tables: (PlannedTable & ArchivedTable)[];
  sequences: SequenceValue[];
}

/** The object's beginning. */
export function headerBytes(header: ArchiveHeader): Buffer {
  const json = Buffer.from(JSON.stringify(header));
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.write(MAGIC, 'latin1');
  prefix.writeUInt32BE(json.length, MAGIC.length);
  return Buffer.concat([prefix, json]);
}

/** How long the header is, by the object's first bytes. Throws ARCHIVE_UNKNOWN_FORMAT. */
export function headerLength(prefix: Buffer): number {
  const length = prefix.readUInt32BE(MAGIC.length);
  if (prefix.toString('latin1', 0, MAGIC.length) !== MAGIC || length > MAX_HEADER_BYTES) throw unknownFormat();
  return length;
}

/** Reads the header's JSON. Throws ARCHIVE_UNKNOWN_FORMAT. */
export function parseHeader(json: Buffer): ArchiveHeader {
  let header: Partial<ArchiveHeader> | null;
  try {
    header = JSON.parse(json.toString()) as Partial<ArchiveHeader> | null;
  } catch (error) {
    throw unknownFormat(error);
  }
  const { archive_id: id, org_id: org, salt, cipher, compression, rows, key_version: version } = header ?? {};
  const known = cipher === 'aes-256-gcm' && compression === 'zstd' && rows === 'copy-text';
  const typed = [id, org, salt].every((one) => typeof one === 'string') && Number.isSafeInteger(version);
  if (!known || !typed) throw unknownFormat();
  return header as ArchiveHeader;
}

function unknownFormat(cause?: unknown): ArchiveError {
  return new ArchiveError('ARCHIVE_UNKNOWN_FORMAT', 'it does not begin like an archive of a known format', { cause });
}

/** Seals or opens the frames of one archive, in order. */
export class FrameCipher {
  readonly #key: Buffer;
  readonly #archiveId: string;
  #count = 0n;

  /** `secret`: the key the header names. `header`: all of it, as it stands in the archive. */
  constructor(secret: Buffer, header: Buffer, { archive_id: archiveId, salt }: ArchiveHeader) {
    this.#key = Buffer.from(hkdfSync('sha256', secret, Buffer.from(salt, 'base64'), header, 32));
    this.#archiveId = archiveId;
  }

  seal(type: FrameType, plain: Uint8Array): Buffer {
    const { nonce, aad } = this.#place(type);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce).setAAD(aad);
    const prefix = Buffer.alloc(FRAME_PREFIX_BYTES);
    prefix.writeUInt32BE(plain.length + TAG_BYTES);
    prefix.writeUInt8(type, 4);
    return Buffer.concat([prefix, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  }

  /** Throws ARCHIVE_ALTERED. */
  open(type: number, body: Buffer): Buffer {
    const { nonce, aad } = this.#place(type);
    const end = body.length - TAG_BYTES;
    const decipher = createDecipheriv('aes-256-gcm', this.#key, nonce, { authTagLength: TAG_BYTES }).setAAD(aad);
    try {
      decipher.setAuthTag(body.subarray(end));
      return Buffer.concat([decipher.update(body.subarray(0, end)), decipher.final()]);
    } catch (error) {
      throw new ArchiveError('ARCHIVE_ALTERED', `part ${this.#count} is not what was written there`, { cause: error });
    }
  }

  #place(type: number): { nonce: Buffer; aad: Buffer } {
    this.#count += 1n;
    const nonce = Buffer.alloc(12);
    nonce.writeBigUInt64BE(this.#count, 4);
    return { nonce, aad: Buffer.from(`${MAGIC} ${this.#archiveId} ${this.#count} ${type}`) };
  }
}

/** How long a frame's ciphertext and tag are, and its type. Throws ARCHIVE_ALTERED for what no writer writes. */
export function framePrefix(prefix: Buffer): { length: number; type: number } {
  const length = prefix.readUInt32BE();
  if (length < TAG_BYTES || length > MAX_FRAME_BYTES) {
    throw new ArchiveError('ARCHIVE_ALTERED', `a part cannot have ${length} bytes`);
  }
  return { length, type: prefix.readUInt8(4) };
}
