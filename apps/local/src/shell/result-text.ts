/** What a statement answered, every value in Postgres's own spelling; null stays null. */
export interface Answer {
  /** E.g. `SELECT`, `CREATE TABLE`; empty for nothing. */
  command: string;
  rowCount: number | null;
  columns: string[];
  rows: (string | null)[][];
}

/** How answers are written: a table, a record after another, or one JSON object a line. */
export type Format = 'table' | 'expanded' | 'json';

/** An answer as text, without the last line break. */
export function answerText(answer: Answer, format: Format): string {
  if (format === 'json') return JSON.stringify(answer);
  const { command, rowCount, columns, rows } = answer;
  if (columns.length === 0) return `${command}${rowCount === null ? '' : ` ${rowCount}`}`;
  if (format === 'expanded') return records(columns, rows);
  return `${tableText(columns, rows)}\n(${rows.length} row${rows.length === 1 ? '' : 's'})`;
}

/** Rows under their headings; a line break inside a cell shows as ↵. */
export function tableText(columns: readonly string[], rows: readonly (string | null)[][]): string {
  const cells = rows.map((row) => row.map((cell) => (cell ?? '').replaceAll('\n', '↵')));
  const widths = columns.map((name, i) => cells.reduce((most, row) => Math.max(most, row[i]!.length), name.length));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join(' | ')
      .trimEnd();
  return [line(columns), widths.map((width) => '-'.repeat(width)).join('-+-'), ...cells.map(line)].join('\n');
}

function records(columns: readonly string[], rows: readonly (string | null)[][]): string {
  if (rows.length === 0) return '(0 rows)';
  const width = Math.max(...columns.map((name) => name.length));
  return rows
    .map((row, i) => {
      const lines = columns.map((name, column) => `${name.padEnd(width)} | ${row[column] ?? ''}`.trimEnd());
      return [`-[ RECORD ${i + 1} ]-`, ...lines].join('\n');
    })
    .join('\n');
}
