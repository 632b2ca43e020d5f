/** Text as Postgres can keep it: it has no NUL, and an engine's stderr may. */
export function withoutNul(text: string): string {
  return text.replaceAll('\0', '');
}

/** JSON text with a NUL in a string, which jsonb cannot keep: an escape behind an even number of backslashes. */
const JSON_NUL = /(?<!\\)(?:\\\\)*\\u0000/;

/** An object as jsonb text; undefined when a string in it holds a NUL. */
export function jsonText(object: object): string | undefined {
  const text = JSON.stringify(object);
  return JSON_NUL.test(text) ? undefined : text;
}
