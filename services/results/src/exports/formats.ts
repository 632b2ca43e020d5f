import { CSV_HEADING, csvLine } from '../domain/csv.ts';
import type { ExportFormatName } from '../domain/export-format.ts';
import type { ExportRow } from '../domain/export-row.ts';
import { jsonLine } from '../domain/json-line.ts';
import { NO_STRUCTURE } from '../domain/mol-block.ts';
import { sdfRecord } from '../domain/sdf.ts';
import { parquetPieces } from './parquet.ts';

/** A hit on its way into a file; the structure of its best pose where the format has structures and one is kept. */
export interface WrittenHit {
  row: ExportRow;
  structure: string | undefined;
}

type Pages = AsyncIterable<readonly WrittenHit[]>;

/** How hits become a file, piece by piece. Equal hits make equal bytes, however they are paged. */
const FORMATS: Record<ExportFormatName, (pages: Pages) => AsyncGenerator<Uint8Array>> = {
  csv: (pages) => textPieces(pages, ({ row }) => csvLine(row), CSV_HEADING),
  jsonl: (pages) => textPieces(pages, ({ row }) => jsonLine(row)),
  sdf: (pages) => textPieces(pages, ({ row, structure }) => sdfRecord(row, structure ?? NO_STRUCTURE)),
  parquet: (pages) => parquetPieces(rowsOf(pages)),
};

/** Hits as a file of this format. */
export const filePieces = (format: ExportFormatName, pages: Pages): AsyncGenerator<Uint8Array> =>
  FORMATS[format](pages);

async function* textPieces(pages: Pages, line: (hit: WrittenHit) => string, heading = ''): AsyncGenerator<Uint8Array> {
  if (heading !== '') yield Buffer.from(heading);
  for await (const page of pages) yield Buffer.from(page.map(line).join(''));
}

async function* rowsOf(pages: Pages): AsyncGenerator<ExportRow[]> {
  for await (const page of pages) yield page.map(({ row }) => row);
}
