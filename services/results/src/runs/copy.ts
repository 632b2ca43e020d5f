import { pipeline } from 'node:stream/promises';
import { Readable } from 'node:stream';
import type { TenantTx } from '@mad/tenancy';
import { from } from 'pg-copy-streams';

/** A column's type, as the table has it. An enum's label is sent as text. */
export type CopyType = 'int2' | 'int4' | 'int8' | 'float8' | 'uuid' | 'text' | 'jsonb' | 'timestamptz';

/** A value: null, or what its column's type holds. A uuid may come as its 16 bytes, jsonb as its text. */
export type CopyValue = string | number | Date | Uint8Array | null;

/** A table and its columns, in the rows' order. */
export interface CopyTarget {
  table: string;
  columns: Readonly<Record<string, CopyType>>;
}

/** "PGCOPY", the bytes that show damage by a text transfer, no flags, no extension. */
const HEADER = Buffer.from('PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0', 'latin1');
/** Sent once so many bytes wait: few enough to keep memory flat, enough to keep the socket busy. */
const CHUNK_BYTES = 64 * 1024;
/** Postgres counts microseconds from 2000. */
const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1);
const JSONB_VERSION = 1;

/** The 16 bytes of a UUID. */
export function uuidBytes(uuid: string): Uint8Array {
  const bytes = Buffer.from(uuid.replaceAll('-', ''), 'hex');
  if (bytes.length !== 16) throw new RangeError(`${uuid} is not a UUID`);
  return bytes;
}

/** Writes rows in COPY's binary format into a buffer that is handed on chunk by chunk. */
class BinaryRows {
  #buffer = Buffer.allocUnsafe(2 * CHUNK_BYTES);
  #end = HEADER.copy(this.#buffer);

  get waits(): number {
    return this.#end;
  }

  /** What was written since the last time. */
  take(): Buffer {
    const chunk = this.#buffer.subarray(0, this.#end);
    // The socket may hold the old one for a while.
    this.#buffer = Buffer.allocUnsafe(2 * CHUNK_BYTES);
    this.#end = 0;
    return chunk;
  }

  row(types: readonly CopyType[], values: readonly CopyValue[]): void {
    this.#reserve(2);
    this.#end = this.#buffer.writeInt16BE(types.length, this.#end);
    for (let index = 0; index < types.length; index += 1) this.#field(types[index]!, values[index]!);
  }

  /** After the last row. */
  trailer(): void {
    this.#reserve(2);
    this.#end = this.#buffer.writeInt16BE(-1, this.#end);
  }

  #field(type: CopyType, value: CopyValue): void {
    // A length and any value of fixed size.
    this.#reserve(20);
    const buffer = this.#buffer;
    if (value === null) {
      this.#end = buffer.writeInt32BE(-1, this.#end);
      return;
    }
    switch (type) {
      case 'int2':
        this.#end = buffer.writeInt16BE(value as number, this.#length(2));
        return;
      case 'int4':
        this.#end = buffer.writeInt32BE(value as number, this.#length(4));
        return;
      case 'int8':
        this.#end = buffer.writeBigInt64BE(BigInt(value as number), this.#length(8));
        return;
      case 'float8':
        this.#end = buffer.writeDoubleBE(value as number, this.#length(8));
        return;
      case 'timestamptz': {
        const micros = BigInt((value as Date).getTime() - POSTGRES_EPOCH_MS) * 1000n;
        this.#end = buffer.writeBigInt64BE(micros, this.#length(8));
        return;
      }
      case 'uuid': {
        const at = this.#length(16);
        buffer.set(typeof value === 'string' ? uuidBytes(value) : (value as Uint8Array), at);
        this.#end = at + 16;
        return;
      }
      default:
        this.#text(value as string, type === 'jsonb');
    }
  }

  #text(text: string, isJsonb: boolean): void {
    // UTF-8 takes at most three bytes for a UTF-16 unit; where that does not fit, the exact length decides.
    const most = text.length * 3 + 5;
    if (most > this.#buffer.length - this.#end) this.#reserve(Buffer.byteLength(text) + 5);
    let start = this.#end + 4;
    if (isJsonb) start = this.#buffer.writeUInt8(JSONB_VERSION, start);
    const end = start + this.#buffer.write(text, start);
    this.#buffer.writeInt32BE(end - this.#end - 4, this.#end);
    this.#end = end;
  }

  /** Writes a field's length; returns where its value goes. */
  #length(bytes: number): number {
    return this.#buffer.writeInt32BE(bytes, this.#end);
  }

  #reserve(bytes: number): void {
    const needed = this.#end + bytes;
    if (needed <= this.#buffer.length) return;
    const bigger = Buffer.allocUnsafe(Math.max(needed, 2 * this.#buffer.length));
    this.#buffer.copy(bigger, 0, 0, this.#end);
    this.#buffer = bigger;
  }
}

/** Rows as chunks of COPY's binary format. `rows` may give the same array again and again: it is read at once. */
export function* binaryChunks(
  types: readonly CopyType[],
  rows: Iterable<readonly CopyValue[]>,
): Generator<Buffer, void, undefined> {
  const writer = new BinaryRows();
  for (const row of rows) {
    writer.row(types, row);
    if (writer.waits >= CHUNK_BYTES) yield writer.take();
  }
  writer.trailer();
  yield writer.take();
}

/**
 * Adds rows to a table by binary COPY: many times the rate of INSERT. Rows are made only as fast as the server takes
 * them.
 */
export async function copyRows(
  tx: TenantTx,
  { table, columns }: CopyTarget,
  rows: Iterable<readonly CopyValue[]>,
): Promise<void> {
  const sql = `COPY ${table} (${Object.keys(columns).join(', ')}) FROM STDIN (FORMAT binary)`;
  const chunks = Readable.from(binaryChunks(Object.values(columns), rows), { highWaterMark: 1 });
  await pipeline(chunks, tx.client.query(from(sql, { highWaterMark: 4 * CHUNK_BYTES })));
}
