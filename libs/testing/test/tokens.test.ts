import { Code } from '@connectrpc/connect';
import { expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { reasonOf } from '@mad/rpc';
import {
  badTokens,
  bearer,
  platformToken,
  serviceToken,
  testServiceVerifier,
  testVerifier,
  userToken,
  type BadToken,
} from '../src/index.ts';

const orgId = uuidv7();

test('tokens for tests are what the real verifiers accept', async () => {
  const userId = uuidv7();
  const verify = testVerifier();
  expect(await verify(await userToken({ orgId, userId, permissions: ['jobs.create'], roles: ['user'] }))).toMatchObject(
    {
      kind: 'user',
      orgId,
      userId,
      permissions: ['jobs.create'],
      roles: ['user'],
    },
  );
  expect(await verify(await platformToken())).toMatchObject({ kind: 'platform', roles: ['super_admin'] });
  const verifyService = await testServiceVerifier(['catalog']);
  expect(await verifyService(await serviceToken('catalog'))).toMatchObject({ kind: 'service', service: 'catalog' });
  await expect(verifyService(await serviceToken('results'))).rejects.toMatchObject({ code: Code.Unauthenticated });
  expect(bearer('t')).toEqual({ headers: { authorization: 'Bearer t' } });
});

// The reason shows that a token was refused for what is wrong with it, and not because it was badly forged.
const REASONS: Record<BadToken, string> = {
  expired: 'TOKEN_EXPIRED',
  foreignAudience: 'WRONG_AUDIENCE',
  foreignIssuer: 'TOKEN_INVALID',
  foreignKey: 'TOKEN_INVALID',
  altered: 'TOKEN_INVALID',
  unsigned: 'TOKEN_INVALID',
  algNone: 'TOKEN_INVALID',
  malformed: 'TOKEN_INVALID',
  empty: 'TOKEN_INVALID',
};

test('every bad token is refused for what is wrong with it', async () => {
  const verify = testVerifier();
  const outcomes = Object.entries(await badTokens({ orgId })).map(async ([why, token]) => {
    const error: unknown = await verify(token).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: Code.Unauthenticated });
    return [why, reasonOf(error)];
  });
  expect(Object.fromEntries(await Promise.all(outcomes))).toEqual(REASONS);
});
