import { parquetMetadata } from 'hyparquet';

/** Counts the rows of a file that comes in pieces. */
export interface RowCounter {
  add(piece: Uint8Array): void;
  /** Throws where the file is not whole. */
  rows(): number;
}

const NEWLINE = 10;
const QUOTE = 34;

/** Rows of CSV end in line breaks outside quotes; the first is the heading. */
function csvRows(): RowCounter {
  let [lines, isQuoted, last] = [0, false, NEWLINE];
  return {
    add(piece) {
      for (const byte of piece) {
        // A quote written double closes and opens again.
        if (byte === QUOTE) isQuoted = !isQuoted;
        else if (byte === NEWLINE && !isQuoted) lines += 1;
        last = byte;
      }
    },
    rows() {
      if (isQuoted || last !== NEWLINE || lines === 0) throw new Error('it ends in the middle of a row');
      return lines - 1;
    },
  };
}

/** Rows of other text end in a line that `ends` it. */
function textRows(ends: (line: string) => boolean): RowCounter {
  const decoder = new TextDecoder();
  let [rest, rows] = ['', 0];
  let isOver = true;
  return {
    add(piece) {
      const lines = (rest + decoder.decode(piece, { stream: true })).split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        isOver = ends(line);
        if (isOver) rows += 1;
      }
    },
    rows() {
      if (rest !== '' || !isOver) throw new Error('it ends in the middle of a row');
      return rows;
    },
  };
}

/** Parquet says at its end how many rows it has. */
function parquetRows(): RowCounter {
  const pieces: Uint8Array[] = [];
  return {
    add: (piece) => void pieces.push(piece),
    rows() {
      const content = Uint8Array.from(Buffer.concat(pieces));
      return Number(parquetMetadata(content.buffer).num_rows);
    },
  };
}

const COUNTERS: Readonly<Record<string, () => RowCounter>> = {
  csv: csvRows,
  jsonl: () => textRows(() => true),
  sdf: () => textRows((line) => line === '$$$$'),
  parquet: parquetRows,
};

/** A counter for files of this format; undefined for a format that is not known here. */
export const rowCounter = (format: string): RowCounter | undefined =>
  Object.hasOwn(COUNTERS, format) ? COUNTERS[format]!() : undefined;
