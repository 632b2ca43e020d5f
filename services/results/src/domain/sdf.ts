import { EXPORT_COLUMNS, type ExportRow } from './export-row.ts';
import { withTitle } from './mol-block.ts';

/** Titles are one line of at most 80 characters. */
const MAX_TITLE = 80;
/** What a line of data cannot hold. A backslash is written double, so that every text can be read back. */
const ESCAPED = /[\\\p{Cc}\p{Zl}\p{Zp}]/gu;
const NAMED: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** Any text as one line: backslashes, line breaks and other control characters are escaped as in JSON. */
export function sdfText(text: string): string {
  const escaped = text.replace(
    ESCAPED,
    (one) => NAMED[one] ?? `\\u${one.codePointAt(0)!.toString(16).padStart(4, '0')}`,
  );
  // A blank line would end the value, and readers drop blanks around it.
  return escaped.replace(/^ | $/g, '\\u0020').replace(/^\$/, '\\u0024');
}

/** The text that `sdfText` wrote. */
export function readSdfText(line: string): string {
  const unnamed: Readonly<Record<string, string>> = { '\\': '\\', n: '\n', r: '\r', t: '\t' };
  return line.replace(/\\(?:u([0-9a-f]{4})|(.))/g, (_all, code: string | undefined, name: string) =>
    code === undefined ? unnamed[name]! : String.fromCodePoint(Number.parseInt(code, 16)),
  );
}

/**
 * A hit as a record of an SD file: its structure under the molecule's name, then what is known of it. Numbers and texts
 * that are not known are left out; texts are written by `sdfText`, SMILES as they are, since they hold no blanks and are
 * full of backslashes.
 */
export function sdfRecord(row: ExportRow, molBlock: string): string {
  const title = sdfText(row.molecule_name)
    .slice(0, MAX_TITLE)
    // Half a character is none.
    .replace(/[\ud800-\udbff]$/, '');
  let data = '';
  for (const { name, type } of EXPORT_COLUMNS) {
    const value = row[name];
    if (value === null || value === '') continue;
    const text = type === 'text' && name !== 'smiles' ? sdfText(value as string) : String(value);
    data += `>  <${name}>\n${text}\n\n`;
  }
  return `${withTitle(molBlock, title).replace(/\n?$/, '\n')}${data}$$$$\n`;
}
