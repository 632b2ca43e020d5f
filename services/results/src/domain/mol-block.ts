/** Of one structure: 999 atoms, which is the most V2000 has, take 70,000. */
const MAX_LENGTH = 100_000;
const COUNTS = /^[ \d]{6}.* V2000\s*$/;

/** What is wrong with a mol block, in words; undefined when it may become a record of an SD file. */
export function problemOfMolBlock(text: string): string | undefined {
  if (text.length > MAX_LENGTH) return `is longer than ${MAX_LENGTH} characters`;
  if (!/^[\n\x20-\x7e]*$/.test(text)) return 'must be printable ASCII in lines';
  const lines = text.replace(/\n$/, '').split('\n');
  if (!COUNTS.test(lines[3] ?? '')) return 'must have the counts of a V2000 mol block in its fourth line';
  if (lines.at(-1) !== 'M  END') return 'must end with M  END';
  // Such a line would end the record in the middle of it.
  if (lines.some((line) => line.startsWith('$$$$'))) return 'must not have a line $$$$';
  return undefined;
}

/** The same structure under another title: its first line. */
export function withTitle(molBlock: string, title: string): string {
  return `${title}${molBlock.slice(molBlock.indexOf('\n'))}`;
}

/** A structure of no atoms: a record that has data only. */
export const NO_STRUCTURE = '\n  MAD\n\n  0  0  0  0  0  0            999 V2000\nM  END\n';
