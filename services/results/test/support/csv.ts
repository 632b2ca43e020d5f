/** Reads CSV as RFC 4180 says; an unquoted empty field is null. */
export function readCsv(text: string): (string | null)[][] {
  const rows: (string | null)[][] = [];
  let row: (string | null)[] = [];
  let at = 0;
  while (at < text.length) {
    let value: string | null;
    if (text[at] === '"') {
      value = '';
      for (at += 1; ; at += 1) {
        if (at >= text.length) throw new Error('a quote is open at the end');
        if (text[at] !== '"') value += text[at]!;
        else if (text[at + 1] === '"') value += text[(at += 1)]!;
        else break;
      }
      at += 1;
    } else {
      const end = /[,\n]/g;
      end.lastIndex = at;
      const stop = end.exec(text)?.index ?? text.length;
      value = stop === at ? null : text.slice(at, stop);
      at = stop;
    }
    row.push(value);
    if (text[at] === '\n') {
      rows.push(row);
      row = [];
    } else if (text[at] !== ',') throw new Error(`${JSON.stringify(text[at])} follows a field`);
    at += 1;
  }
  if (row.length > 0) throw new Error('the last line has no end');
  return rows;
}
