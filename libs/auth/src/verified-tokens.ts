import { LRUCache } from 'lru-cache';

interface Verified<T> {
  /** Settled: a hit costs no allocation. */
  value: Promise<T>;
  /** Epoch milliseconds. */
  expiresAt: number;
}

/** What a verification found: the value and when the token ends, in epoch milliseconds. */
export interface Verification<T> {
  value: T;
  expiresAt: number;
}

const MAX_TOKENS = 10_000;

/**
 * Remembers verified tokens until they expire: verifying a signature takes 100 µs, remembering it one. A token is looked up
 * by its whole text, so nothing but the very token that was verified is accepted. Refused tokens are not remembered.
 */
export function rememberVerified<T>(
  verify: (token: string) => Promise<Verification<T>>,
): (token: string) => Promise<T> {
  const verified = new LRUCache<string, Verified<T>>({ max: MAX_TOKENS });
  return (token) => {
    const known = verified.get(token);
    if (known && known.expiresAt > Date.now()) return known.value;
    return verify(token).then(({ value, expiresAt }) => {
      verified.set(token, { value: Promise.resolve(value), expiresAt });
      return value;
    });
  };
}
