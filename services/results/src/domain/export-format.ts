/** What files of an export can be; also the end of their names. */
export const EXPORT_FORMATS = ['csv', 'sdf', 'parquet', 'jsonl'] as const;
export type ExportFormatName = (typeof EXPORT_FORMATS)[number];

export type ExportStateName = 'running' | 'completed' | 'failed';

/** The name of a part's file, e.g. `part-00001.csv`. */
export function partFile(partNo: number, format: ExportFormatName): string {
  return `part-${String(partNo).padStart(5, '0')}.${format}`;
}
