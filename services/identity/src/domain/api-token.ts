/** The parts of an API token `mad_<prefix>_<secret>`. */
export interface ApiToken {
  /** 10 characters a–z and 0–9, unique, shown in lists. */
  prefix: string;
  /** 32 random bytes in base64url. */
  secret: string;
}

/** Writes an API token. */
export function formatApiToken({ prefix, secret }: ApiToken): string {
  return `mad_${prefix}_${secret}`;
}

/** Reads an API token; undefined when the text is none. */
export function parseApiToken(text: string): ApiToken | undefined {
  const match = /^mad_([a-z0-9]{10})_([A-Za-z0-9_-]{43})$/.exec(text);
  return match === null ? undefined : { prefix: match[1]!, secret: match[2]! };
}

/** The prefix that 10 or more random bytes spell. */
export function tokenPrefix(random: Uint8Array): string {
  const letters = 'abcdefghijklmnopqrstuvwxyz234567';
  return Array.from(random.subarray(0, 10), (byte) => letters[byte % letters.length]).join('');
}
