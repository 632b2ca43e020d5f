/** Text as Postgres can keep it: it has no NUL, and an engine's stderr may. */
export function withoutNul(text: string): string {
  return text.replaceAll('\0', '');
}

/**
 * Escapes in JSON text that jsonb cannot keep: NUL and, since well-formed text spells pairs out, lone surrogates. An escape
 * stands behind an even number of backslashes.
 */
const NOT_STORABLE = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f][0-9a-f]{2})/;

/** An object as jsonb text; undefined when a string in it is nothing that Postgres can keep. */
export function jsonText(object: object): string | undefined {
  const text = JSON.stringify(object);
  return NOT_STORABLE.test(text) ? undefined : text;
}

/** The text of a JSON object as jsonb can keep it, and what it says; undefined when it is none. */
export function storableObject(text: string): { text: string; value: object } | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
    if (value === null || typeof value !== 'object' || Array.isArray(value)) return undefined;
    // Written anew: numbers beyond what JavaScript holds would be beyond jsonb's as well.
    const storable = jsonText(value);
    return storable === undefined ? undefined : { text: storable, value };
  } catch {
    return undefined;
  }
}
