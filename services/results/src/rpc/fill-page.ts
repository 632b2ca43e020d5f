import { CONTENT_BYTES } from '../domain/content.ts';

/** Rows read at once while their size is not known yet; a default page and the row after it are among them. */
const FIRST_STEP = 64;

/** How to fill a page. */
export interface PageToFill<Row> {
  /** Rows at most. */
  size: number;
  /** The next rows after those that were read, `limit` at most; fewer say that there are no more. */
  read: (known: readonly Row[], limit: number) => Promise<readonly Row[]>;
  /** Bytes of a row in the answer. */
  bytesOf: (row: Row) => number;
}

/** The first of some rows: as many as fit into one message, one at least. */
export function fitting<Row>(rows: readonly Row[], bytesOf: (row: Row) => number): readonly Row[] {
  let bytes = 0;
  const end = rows.findIndex((row, index) => (bytes += bytesOf(row)) > CONTENT_BYTES && index > 0);
  return end < 0 ? rows : rows.slice(0, end);
}

/**
 * Rows of one page: as many as were asked for, or as fit into one message, and one at least. Read step by step, so that what
 * does not fit is mostly not read either. `more` says that rows follow.
 */
export async function fillPage<Row>({ size, read, bytesOf }: PageToFill<Row>): Promise<{ rows: Row[]; more: boolean }> {
  const rows: Row[] = [];
  let bytes = 0;
  for (let step = FIRST_STEP; ;) {
    const limit = Math.min(step, size + 1 - rows.length);
    const found = await read(rows, limit);
    for (const row of found) {
      const its = bytesOf(row);
      if (rows.length === size || (rows.length > 0 && bytes + its > CONTENT_BYTES)) return { rows, more: true };
      rows.push(row);
      bytes += its;
    }
    if (found.length < limit) return { rows, more: false };
    // As many as would fit, were they like those before them, and the one that tells whether there are more.
    step = Math.ceil((CONTENT_BYTES - bytes) / (bytes / rows.length)) + 1;
  }
}
