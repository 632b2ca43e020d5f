import { toJson, type DescMessage, type MessageShape } from '@bufbuild/protobuf';

/** Where a command writes: a table for people, one JSON document for programs. */
export interface Output {
  json: boolean;
  /** The answer: `value` as one JSON line with --json, else `text`. */
  answer(value: unknown, text: string): void;
  /** A remark for people; silent with --json. */
  note(text: string): void;
}

/** Writes answers to stdout and remarks to stderr, so that a pipe gets the answer alone. */
export function createOutput(json: boolean): Output {
  return {
    json,
    answer: (value, text) => void process.stdout.write(`${json ? JSON.stringify(value) : text}\n`),
    note: (text) => void (json || process.stderr.write(`${text}\n`)),
  };
}

/** A protobuf message as the JSON that REST shows. */
export function jsonOf<D extends DescMessage>(desc: D, message: MessageShape<D> | undefined): unknown {
  return message === undefined ? null : toJson(desc, message, { alwaysEmitImplicit: true });
}

/** Lines up rows under headings; numbers to the right. An empty table says so. */
export function table(headings: string[], rows: (string | number)[][]): string {
  if (rows.length === 0) return 'none';
  const cells = rows.map((row) => row.map(String));
  const widths = headings.map((heading, i) => Math.max(heading.length, ...cells.map((row) => row[i]!.length)));
  const right = headings.map((_, i) => rows.every((row) => typeof row[i] === 'number'));
  const line = (row: string[]) =>
    row
      .map((cell, i) => (right[i] ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd();
  return [line(headings), line(widths.map((width) => '─'.repeat(width))), ...cells.map(line)].join('\n');
}

/** A short time span for people: "840 ms", "12.3 s". */
export function duration(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
