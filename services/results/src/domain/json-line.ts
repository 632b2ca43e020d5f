import type { ExportRow } from './export-row.ts';

/** A hit as a line of JSON; what the engine said is an object in it. */
export function jsonLine({ result_data: resultData, ...row }: ExportRow): string {
  return `${JSON.stringify(row).slice(0, -1)},"result_data":${resultData ?? 'null'}}\n`;
}
