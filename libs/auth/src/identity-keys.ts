import { createClient, type Transport } from '@connectrpc/connect';
import { SessionService } from '@mad/proto/identity';
import type { KeySet } from './key-set.ts';

/** Fetches the public keys that identity signs access tokens by; `identity` is the way to it. */
export function identityKeys(identity: Transport): () => Promise<KeySet> {
  const sessions = createClient(SessionService, identity);
  return async () => {
    const { keys } = await sessions.getJsonWebKeySet({});
    return { keys: keys.map(({ kid, kty, crv, alg, use, x, y }) => ({ kid, kty, crv, alg, use, x, y })) };
  };
}
