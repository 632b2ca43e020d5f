import { ByteWriter, ParquetWriter, schemaFromColumnData } from 'hyparquet-writer';
import { EXPORT_COLUMNS, type ColumnType, type ExportRow } from '../domain/export-row.ts';

/** Rows of a group: what of a file is in memory at once. A fixed number, so that equal rows make equal files. */
const GROUP_ROWS = 10_000;

const TYPES = { integer: 'INT32', number: 'DOUBLE', text: 'STRING' } as const satisfies Record<ColumnType, string>;

function columnsOf(rows: readonly ExportRow[]) {
  return EXPORT_COLUMNS.map(({ name, type, nullable }) => ({
    name,
    type: TYPES[type],
    nullable,
    data: rows.map((row) => row[name]),
  }));
}

/** Hits as an Apache Parquet file, piece by piece. */
export async function* parquetPieces(pages: AsyncIterable<readonly ExportRow[]>): AsyncGenerator<Uint8Array> {
  const writer = new ByteWriter();
  /** What was written since the last time; the writer goes on counting from the file's beginning. */
  const taken = (): Uint8Array => {
    const piece = Uint8Array.from(writer.getBytes());
    writer.index = 0;
    return piece;
  };
  const schema = schemaFromColumnData({ columnData: columnsOf([]) });
  const file = new ParquetWriter({ writer, schema, createdBy: 'MAD' });
  const write = async (rows: readonly ExportRow[]): Promise<void> => {
    const columnData = columnsOf(rows).map(({ name, data }) => ({ name, data }));
    await file.write({ columnData, rowGroupSize: GROUP_ROWS });
  };
  let group: ExportRow[] = [];
  for await (const page of pages) {
    for (const row of page) {
      group.push(row);
      if (group.length < GROUP_ROWS) continue;
      await write(group);
      group = [];
      yield taken();
    }
  }
  if (group.length > 0) await write(group);
  await file.finish();
  yield taken();
}
