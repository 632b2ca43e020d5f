import { pipeline } from 'node:stream/promises';
import { Readable } from 'node:stream';
import type { TenantTx } from '@mad/tenancy';
import { from } from 'pg-copy-streams';

/** A value of COPY's text format: null, or what Postgres reads in a column of its type. */
export type CopyValue = string | number | null;

const ESCAPED: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };
/** Lines sent at once: few enough to keep memory flat, enough to keep the socket busy. */
const LINES_PER_WRITE = 500;

function field(value: CopyValue): string {
  if (value === null) return '\\N';
  if (typeof value === 'number') return String(value);
  return /[\\\n\r\t]/.test(value) ? value.replace(/[\\\n\r\t]/g, (character) => ESCAPED[character]!) : value;
}

function* blocks(rows: Iterable<readonly CopyValue[]>): Generator<string> {
  let block = '';
  let lines = 0;
  for (const row of rows) {
    block += `${row.map(field).join('\t')}\n`;
    lines += 1;
    if (lines % LINES_PER_WRITE === 0) {
      yield block;
      block = '';
    }
  }
  if (block !== '') yield block;
}

/** Adds rows to a table by COPY: several times the rate of INSERT. `target` is "table (column, …)" in the rows' order. */
export async function copyRows(tx: TenantTx, target: string, rows: Iterable<readonly CopyValue[]>): Promise<void> {
  await pipeline(Readable.from(blocks(rows)), tx.client.query(from(`COPY ${target} FROM STDIN`)));
}
