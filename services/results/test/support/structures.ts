/** A mol block of one atom at a place, which tells it from others. */
export function atomAt(x: number): string {
  const atom = `${x.toFixed(4).padStart(10)}    0.0000    0.0000 C   0  0  0  0  0  0  0  0  0  0  0  0`;
  return `\n  MAD               3D\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n${atom}\nM  END\n`;
}

/** A record of an SD file, read back: its title, its structure's lines, its data. */
export interface SdfRecord {
  title: string;
  structure: string;
  data: Map<string, string>;
}

/** Reads an SD file as the format's description says: records end in $$$$, values in a blank line. */
export function readSdf(text: string): SdfRecord[] {
  if (text === '') return [];
  if (!text.endsWith('$$$$\n')) throw new Error('the last record has no end');
  return text
    .slice(0, -'$$$$\n'.length)
    .split(/^\$\$\$\$\n/m)
    .map((record) => {
      // The title may be anything.
      const end = record.indexOf('\nM  END\n') + '\nM  END\n'.length;
      const data = new Map<string, string>();
      for (const item of record.slice(end).split('\n\n')) {
        if (item === '') continue;
        const [head, ...value] = item.split('\n');
        data.set(/^> {2}<(.+)>$/.exec(head!)![1]!, value.join('\n'));
      }
      return { title: record.slice(0, record.indexOf('\n')), structure: record.slice(record.indexOf('\n'), end), data };
    });
}
