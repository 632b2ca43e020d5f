import { ExportFormat } from '@mad/proto/results';
import { parquetReadObjects } from 'hyparquet';
import { readSdfText } from '../../src/domain/sdf.ts';
import { readCsv } from './csv.ts';
import { readSdf } from './structures.ts';

/** A hit as a reader of a file gives it. */
export type Read = Record<string, unknown>;

/** What each format says of the hits, read back by readers that are not ours, or are written from the format's description. */
export const EXPORT_READERS: [
  name: string,
  format: ExportFormat,
  read: (content: Buffer) => Promise<Read[]> | Read[],
][] = [
  [
    'csv',
    ExportFormat.CSV,
    (content) => {
      const [heading, ...lines] = readCsv(content.toString());
      return lines.map((line) => Object.fromEntries(line.map((value, index) => [heading![index]!, value])));
    },
  ],
  [
    'JSON lines',
    ExportFormat.JSON_LINES,
    (content) =>
      content
        .toString()
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line) as Read)
        .map((row) => ({ ...row, result_data: JSON.stringify(row['result_data']) })),
  ],
  [
    'Parquet',
    ExportFormat.PARQUET,
    async (content) => {
      const { buffer, byteOffset, length } = content;
      return (await parquetReadObjects({
        file: (buffer as ArrayBuffer).slice(byteOffset, byteOffset + length),
      })) as Read[];
    },
  ],
  [
    'SDF',
    ExportFormat.SDF,
    (content) =>
      readSdf(content.toString()).map(({ data }) => {
        const texts = [...data].map(([key, value]) => [key, key === 'smiles' ? value : readSdfText(value)] as const);
        return { molecule_name: '', ...Object.fromEntries(texts) };
      }),
  ],
];
