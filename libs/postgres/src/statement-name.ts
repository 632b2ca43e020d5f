import { createHash } from 'node:crypto';

/** Texts built with a changing number of placeholders must fill neither our memory nor the server's. */
const MAX_NAMES = 2_000;

const names = new Map<string, string>();

/**
 * A name for a prepared statement, the same for the same text: the server then parses and plans it once per
 * connection. Undefined when the process has named enough texts; such a statement runs unnamed.
 */
export function statementName(sql: string): string | undefined {
  const known = names.get(sql);
  if (known !== undefined) return known;
  if (names.size >= MAX_NAMES) return undefined;
  const name = `mad_${createHash('sha1').update(sql).digest('base64url')}`;
  names.set(sql, name);
  return name;
}
