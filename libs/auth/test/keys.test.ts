import { Code } from '@connectrpc/connect';
import { describe, expect, test } from '@jest/globals';
import { SECOND_MS, sleep } from '@mad/process';
import { reasonOf } from '@mad/rpc';
import type { JWK } from 'jose';
import {
  createAccessTokenVerifier,
  createLeaseSigner,
  createLeaseVerifier,
  createServiceTokenSigner,
  createServiceTokenVerifier,
  generateSigningKey,
  publicJwkOf,
  signAccessToken,
} from '../src/index.ts';
import { orgId, userClaims, userId } from './harness.ts';

const reasonOfRefusal = (call: Promise<unknown>): Promise<string | undefined> =>
  call.then(
    () => 'accepted',
    (error: unknown) => reasonOf(error),
  );

describe('published keys', () => {
  /** A key set whose content and health a test decides. */
  function published(...keys: JWK[]) {
    const state = { keys, fetches: 0, down: false };
    const jwks = async () => {
      state.fetches++;
      if (state.down) throw new Error('identity is down');
      return { keys: state.keys };
    };
    return { state, jwks };
  }

  test('are fetched once for many, and a new key is found after the cooldown', async () => {
    const [old, next] = [await generateSigningKey(), await generateSigningKey()];
    const { state, jwks } = published(old.publicJwk);
    const verify = createAccessTokenVerifier({ jwks, cooldownMs: 50 });
    const tokens = await Promise.all(
      Array.from({ length: 10 }, (_, n) => signAccessToken(old, { ...userClaims, version: n })),
    );
    await Promise.all(tokens.map(verify));
    expect(state.fetches).toBe(1);

    const fresh = await signAccessToken(next, userClaims);
    state.keys = [old.publicJwk, next.publicJwk];
    expect(await reasonOfRefusal(verify(fresh))).toBe('TOKEN_INVALID');
    expect(state.fetches).toBe(1);
    await sleep(60);
    expect(await verify(fresh)).toMatchObject({ kind: 'user', userId, orgId });
    expect(state.fetches).toBe(2);
  });

  test('a withdrawn key is forgotten with age', async () => {
    const [old, next] = [await generateSigningKey(), await generateSigningKey()];
    const { state, jwks } = published(old.publicJwk);
    const verify = createAccessTokenVerifier({ jwks, cooldownMs: 0, maxAgeMs: 20 });
    await verify(await signAccessToken(old, userClaims));
    state.keys = [next.publicJwk];
    await sleep(30);
    expect(await reasonOfRefusal(verify(await signAccessToken(old, { ...userClaims, version: 2 })))).toBe(
      'TOKEN_INVALID',
    );
  });

  test('known keys work while identity is down; without any the call is unavailable', async () => {
    const key = await generateSigningKey();
    const { state, jwks } = published(key.publicJwk);
    const verify = createAccessTokenVerifier({ jwks, cooldownMs: 0, maxAgeMs: 0 });
    await verify(await signAccessToken(key, userClaims));
    state.down = true;
    expect(await verify(await signAccessToken(key, { ...userClaims, version: 2 }))).toMatchObject({ userId });

    const cold = createAccessTokenVerifier({ jwks });
    await expect(cold(await signAccessToken(key, userClaims))).rejects.toMatchObject({ code: Code.Unavailable });
  });

  test('a revoked token is refused though it was remembered', async () => {
    const key = await generateSigningKey();
    const { jwks } = published(key.publicJwk);
    let minimum = 0;
    const verify = createAccessTokenVerifier({ jwks, isRevoked: ({ version }) => version < minimum });
    const token = await signAccessToken(key, { ...userClaims, version: 3 });
    await verify(token);
    minimum = 4;
    expect(await reasonOfRefusal(verify(token))).toBe('TOKEN_REVOKED');
  });

  test('a remembered token costs at most a few microseconds', async () => {
    const key = await generateSigningKey();
    const verify = createAccessTokenVerifier(published(key.publicJwk));
    // A copy for each call: a header's text is a new string every time.
    const bytes = Buffer.from(
      await signAccessToken(key, { ...userClaims, permissions: Array(40).fill('molecules.read') }),
    );
    await verify(bytes.toString());
    const rounds = 20_000;
    const run = async (): Promise<number> => {
      const start = performance.now();
      for (let n = 0; n < rounds; n++) await verify(bytes.toString());
      return ((performance.now() - start) * 1000) / rounds;
    };
    await run();
    // The target is 3 µs on a quiet machine; this only catches a cache that does not work (100 µs).
    expect(await run()).toBeLessThan(30);
  });

  test('the private half never leaves a public key', async () => {
    const { privateJwk, publicJwk, kid } = await generateSigningKey();
    expect(publicJwk).not.toHaveProperty('d');
    expect(publicJwkOf(privateJwk)).toEqual(publicJwk);
    expect(publicJwk.kid).toBe(kid);
    expect(() => publicJwkOf({ kty: 'oct', k: 'AA' })).toThrow(TypeError);
  });
});

test('a service that changes its key is accepted with both', async () => {
  const [old, next] = [await generateSigningKey(), await generateSigningKey()];
  const verify = createServiceTokenVerifier({ keys: { catalog: [old.publicJwk, next.publicJwk] } });
  for (const { privateJwk } of [old, next]) {
    const token = await createServiceTokenSigner({ service: 'catalog', privateJwk })();
    expect(await verify(token)).toEqual({ kind: 'service', service: 'catalog' });
  }
});

describe('leases', () => {
  const lease = { orgId, taskExecutionId: userId, attempt: 2, worker: 'worker-1' };

  test('say what was leased, until they end', async () => {
    const { privateJwk, publicJwk } = await generateSigningKey();
    const [sign, verify] = [createLeaseSigner(privateJwk), createLeaseVerifier(publicJwk)];
    expect(await verify(await sign(lease, new Date(Date.now() + 30 * SECOND_MS)))).toEqual(lease);
    const ended = verify(await sign(lease, new Date(Date.now() - 2 * SECOND_MS)));
    await expect(ended).rejects.toMatchObject({ code: Code.FailedPrecondition });
    expect(await reasonOfRefusal(ended)).toBe('LEASE_LOST');
  });

  test('of another key, another kind, or none at all are refused', async () => {
    const [ours, theirs] = [await generateSigningKey(), await generateSigningKey()];
    const verify = createLeaseVerifier(ours.publicJwk);
    const end = new Date(Date.now() + 30 * SECOND_MS);
    const tokens = [
      await createLeaseSigner(theirs.privateJwk)(lease, end),
      await createServiceTokenSigner({ service: 'catalog', privateJwk: ours.privateJwk })(),
      'x',
      '',
    ];
    for (const token of tokens) await expect(verify(token)).rejects.toMatchObject({ code: Code.PermissionDenied });
  });
});
