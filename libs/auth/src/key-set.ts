import { Code } from '@connectrpc/connect';
import { MINUTE_MS, SECOND_MS } from '@mad/process';
import { rpcError } from '@mad/rpc';
import type { CryptoKey, JWK } from 'jose';
import { importSigningJwk } from './signing-key.ts';
import { invalidToken } from './token-errors.ts';

/** A JSON Web Key Set (RFC 7517 §5). */
export interface KeySet {
  keys: JWK[];
}

/** Where public keys come from. */
export interface KeySetOptions {
  /** Fetches the published keys. */
  jwks: () => Promise<KeySet>;
  /** The shortest time between two fetches that unknown key ids cause. Default 5 s. */
  cooldownMs?: number;
  /** Keys older than this are fetched again, so that a withdrawn one is forgotten. Default 10 min. */
  maxAgeMs?: number;
}

/**
 * Finds a public key by its id. Keys are fetched at the first use, when they are old, and when an id is unknown; one fetch
 * serves all who wait. While a fetch fails, keys known before go on working; without any the call is UNAVAILABLE.
 */
export function createKeySet(options: KeySetOptions): (kid: string | undefined) => Promise<CryptoKey> {
  const { jwks, cooldownMs = 5 * SECOND_MS, maxAgeMs = 10 * MINUTE_MS } = options;
  let keys = new Map<string, CryptoKey>();
  let fetchedAt = -Infinity;
  let triedAt = -Infinity;
  let fetching: Promise<void> | undefined;

  const fetchKeys = async (): Promise<void> => {
    triedAt = Date.now();
    const set = await jwks();
    const found = new Map<string, CryptoKey>();
    for (const jwk of set.keys) {
      if (jwk.kid) found.set(jwk.kid, await importSigningJwk({ ...jwk, d: undefined }));
    }
    keys = found;
    fetchedAt = Date.now();
  };
  const refresh = (): Promise<void> =>
    (fetching ??= fetchKeys().finally(() => {
      fetching = undefined;
    }));

  return async (kid) => {
    if (kid === undefined) throw invalidToken();
    const age = Date.now() - fetchedAt;
    const unknown = !keys.has(kid);
    if (fetching || ((unknown || age > maxAgeMs) && Date.now() - triedAt >= cooldownMs)) {
      try {
        await refresh();
      } catch (cause) {
        if (!keys.has(kid)) {
          throw rpcError(
            Code.Unavailable,
            'KEYS_UNAVAILABLE',
            'the keys that verify tokens cannot be fetched',
            {},
            { cause },
          );
        }
      }
    }
    const key = keys.get(kid);
    if (!key && fetchedAt === -Infinity) {
      throw rpcError(Code.Unavailable, 'KEYS_UNAVAILABLE', 'the keys that verify tokens cannot be fetched');
    }
    if (!key) throw invalidToken();
    return key;
  };
}
