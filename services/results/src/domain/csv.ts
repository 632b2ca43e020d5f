import { EXPORT_COLUMNS, type ExportRow } from './export-row.ts';

/** RFC 4180 wants quotes around these; around empty texts they tell them from what is not known. */
const QUOTED = /[",\r\n]|^$|^\s|\s$/;

function field(value: string | number | null): string {
  if (value === null) return '';
  const text = String(value);
  return QUOTED.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The heading of a file. */
export const CSV_HEADING = `${EXPORT_COLUMNS.map(({ name }) => name).join(',')}\n`;

/** A hit as a line of a CSV file. Not known is empty, an empty text is `""`. Numbers can be read back exactly. */
export function csvLine(row: ExportRow): string {
  return `${EXPORT_COLUMNS.map(({ name }) => field(row[name])).join(',')}\n`;
}
