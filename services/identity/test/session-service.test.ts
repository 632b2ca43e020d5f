import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Code } from '@connectrpc/connect';
import { reasonOf, violationsOf } from '@mad/rpc';
import { createLocalJWKSet, decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose';
import { signingKeys } from '../src/keys/signing-keys.ts';
import { masterKey } from '../src/secrets/master-key.ts';
import {
  ADMINISTRATOR,
  failure,
  PASSWORD,
  runIdentity,
  type TestIdentity,
  type TestOrganization,
} from './running-identity.ts';

let mad: TestIdentity;
let acme: TestOrganization;

beforeAll(async () => {
  mad = await runIdentity();
  acme = await mad.organization('acme');
});
afterAll(() => mad.close());

const login = (email: string, password: string, organization = '') =>
  mad.as().sessions.login({ email, password, organization, device: 'lab bench' });

/** Adds a scientist to acme; returns the address. */
async function addScientist(): Promise<{ email: string; userId: string }> {
  const email = `ann-${randomUUID()}@acme.test`;
  const request = { orgId: acme.orgId, requestId: randomUUID(), email, password: PASSWORD, roles: ['user'] };
  const { member } = await acme.admin.members.addMember(request);
  return { email, userId: member!.user!.userId };
}

test('a sign-in answers an ES256 token of ten minutes that the published keys verify', async () => {
  const { tokens, userId, orgId } = await login(acme.adminEmail.toUpperCase(), PASSWORD);
  expect([userId, orgId]).toEqual([acme.adminId, acme.orgId]);
  const { keys } = await mad.as().sessions.getJsonWebKeySet({});
  const published = createLocalJWKSet({ keys });
  const verified = await jwtVerify(tokens!.accessToken, published, { issuer: 'mad', audience: 'mad' });
  expect(verified.protectedHeader).toMatchObject({ alg: 'ES256', kid: expect.any(String) });
  expect(verified.payload).toMatchObject({ sub: acme.adminId, org_id: acme.orgId, roles: ['admin'], ver: 1 });
  expect(verified.payload.exp! - verified.payload.iat!).toBe(600);
  expect(JSON.stringify(keys)).not.toContain('"d"');
});

test('a wrong password, an unknown address, an unknown and a foreign organization get one answer', async () => {
  const globex = await mad.organization('globex');
  const answers = await Promise.all(
    [
      login(acme.adminEmail, 'wrong password'),
      login('nobody@acme.test', PASSWORD),
      login(acme.adminEmail, PASSWORD, 'no-such-org'),
      login(acme.adminEmail, PASSWORD, globex.slug),
      login(`' OR 1=1; --@x`, PASSWORD),
    ].map(failure),
  );
  for (const answer of answers) {
    expect([answer.code, reasonOf(answer)]).toEqual([Code.Unauthenticated, 'CREDENTIALS_WRONG']);
    expect(answer.rawMessage).toBe(answers[0]!.rawMessage);
  }
});

test('an unknown address takes as long as a wrong password', async () => {
  const { email } = await addScientist();
  const time = async (address: string): Promise<number> => {
    const began = performance.now();
    await failure(login(address, 'wrong password'));
    return performance.now() - began;
  };
  await time(email);
  const known = Math.min(await time(email), await time(email), await time(email));
  const unknown = Math.min(await time('x1@y.test'), await time('x2@y.test'), await time('x3@y.test'));
  expect(unknown / known).toBeGreaterThan(0.8);
  expect(unknown / known).toBeLessThan(1.25);
});

test('after five mistakes an account waits, and right passwords too are refused without a look', async () => {
  const { email, userId } = await addScientist();
  for (let attempt = 0; attempt < 6; attempt += 1) await failure(login(email, 'wrong password'));
  const locked = await failure(login(email, PASSWORD));
  expect(reasonOf(locked)).toBe('CREDENTIALS_WRONG');
  await mad.superuser.query('UPDATE identity.users SET locked_until = now() WHERE user_id = $1', [userId]);
  await login(email, PASSWORD);
  const { rows } = await mad.superuser.query(
    'SELECT failed_logins, locked_until FROM identity.users WHERE user_id = $1',
    [userId],
  );
  expect(rows).toEqual([{ failed_logins: 0, locked_until: null }]);
});

test('guesses made at the same time are counted one by one', async () => {
  const { email, userId } = await addScientist();
  await Promise.all(Array.from({ length: 20 }, (_, n) => failure(login(email, `guess number ${n}`))));
  const { rows } = await mad.superuser.query(
    'SELECT failed_logins, locked_until > now() AS locked FROM identity.users WHERE user_id = $1',
    [userId],
  );
  expect(rows).toEqual([{ failed_logins: 6, locked: true }]);
});

test('the platform’s administrator signs in to no organization and holds the platform’s permissions only', async () => {
  const claims = decodeJwt(mad.platformToken);
  expect(claims['org_id']).toBeUndefined();
  expect(claims['roles']).toEqual(['super_admin']);
  expect((claims['perms'] as string[]).every((permission) => permission.startsWith('platform.'))).toBe(true);
  const error = await failure(mad.platform.organizations.getOrganization({ orgId: acme.orgId }));
  expect(error.code).toBe(Code.PermissionDenied);
});

test('who belongs to several organizations names one', async () => {
  const other = await mad.organization('initech');
  const { email } = await addScientist();
  await other.admin.members.addMember({ orgId: other.orgId, requestId: randomUUID(), email, roles: ['user'] });
  const ambiguous = await failure(login(email, PASSWORD));
  expect([ambiguous.code, violationsOf(ambiguous)[0]?.field]).toEqual([Code.InvalidArgument, 'organization']);
  expect((await login(email, PASSWORD, 'initech')).orgId).toBe(other.orgId);
});

test('a refresh token works once; a second use ends the whole sign-in and is written down', async () => {
  const first = (await login(acme.adminEmail, PASSWORD)).tokens!;
  const second = (await mad.as().sessions.refreshSession({ refreshToken: first.refreshToken })).tokens!;
  expect(second.refreshToken).not.toBe(first.refreshToken);
  expect(second.refreshExpireTime).toEqual(first.refreshExpireTime);
  expect(decodeJwt(second.accessToken)['sid']).toBe(decodeJwt(first.accessToken)['sid']);
  const reuse = await failure(mad.as().sessions.refreshSession({ refreshToken: first.refreshToken }));
  expect([reuse.code, reasonOf(reuse)]).toEqual([Code.Unauthenticated, 'REFRESH_TOKEN_REUSED']);
  const ended = await failure(mad.as().sessions.refreshSession({ refreshToken: second.refreshToken }));
  expect(ended.code).toBe(Code.Unauthenticated);
  const { events } = await acme.admin.audit.listAuditEvents({ orgId: acme.orgId, action: 'sessions.reuse_detected' });
  expect(events).toHaveLength(1);
});

test('of two refreshes at once one wins, and the other shows that two hold the token', async () => {
  const { refreshToken } = (await login(acme.adminEmail, PASSWORD)).tokens!;
  const results = await Promise.allSettled([
    mad.as().sessions.refreshSession({ refreshToken }),
    mad.as().sessions.refreshSession({ refreshToken }),
  ]);
  expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
});

test('signing out ends the session, by any of its tokens, again and again', async () => {
  const first = (await login(acme.adminEmail, PASSWORD)).tokens!;
  const second = (await mad.as().sessions.refreshSession({ refreshToken: first.refreshToken })).tokens!;
  await mad.as().sessions.logout({ refreshToken: first.refreshToken });
  await mad.as().sessions.logout({ refreshToken: first.refreshToken });
  await mad.as().sessions.logout({ refreshToken: 'unknown' });
  const error = await failure(mad.as().sessions.refreshSession({ refreshToken: second.refreshToken }));
  expect([error.code, reasonOf(error)]).toEqual([Code.Unauthenticated, 'TOKEN_INVALID']);
});

test('an expired session and a disabled account are refused', async () => {
  const { email, userId } = await addScientist();
  const { refreshToken } = (await login(email, PASSWORD)).tokens!;
  const expire = `UPDATE identity.user_sessions SET created_at = now() - interval '2 days', expires_at = now() - interval '1 day' WHERE user_id = $1`;
  await mad.superuser.query(expire, [userId]);
  expect((await failure(mad.as().sessions.refreshSession({ refreshToken }))).code).toBe(Code.Unauthenticated);
  const live = (await login(email, PASSWORD)).tokens!;
  await mad.superuser.query('UPDATE identity.users SET enabled = false WHERE user_id = $1', [userId]);
  expect((await failure(mad.as().sessions.refreshSession({ refreshToken: live.refreshToken }))).code).toBe(
    Code.Unauthenticated,
  );
  expect(reasonOf(await failure(login(email, PASSWORD)))).toBe('CREDENTIALS_WRONG');
});

test('a platform administrator acts on an organization by a token of it, and its log says so', async () => {
  const act = { orgId: acme.orgId, reason: 'support case 7' };
  const { tokens } = await mad.platform.sessions.actOnOrganization(act);
  expect(tokens!.refreshToken).toBe('');
  const acting = mad.as(tokens!.accessToken);
  expect((await acting.organizations.getOrganization({ orgId: acme.orgId })).organization!.slug).toBe('acme');
  expect(await acting.sessions.whoAmI({})).toMatchObject({ email: ADMINISTRATOR.email, organization: 'acme' });
  await acting.organizations.updateOrganizationSettings({ orgId: acme.orgId, requestId: randomUUID(), config: {} });
  const { events } = await acme.admin.audit.listAuditEvents({ orgId: acme.orgId, pageSize: 2 });
  expect(events.map(({ action, actorKind }) => [action, actorKind])).toEqual([
    ['organizations.update_settings', 'platform'],
    ['sessions.act', 'platform'],
  ]);
  const token = await failure(acting.tokens.createToken({ orgId: acme.orgId, name: 'mine' }));
  expect([token.code, reasonOf(token)]).toEqual([Code.FailedPrecondition, 'STATE_CONFLICT']);
  const unknown = await failure(mad.platform.sessions.actOnOrganization({ ...act, orgId: randomUUID() }));
  expect(reasonOf(unknown)).toBe('ORGANIZATION_NOT_FOUND');
});

test('whoAmI says who the caller is', async () => {
  const me = await acme.admin.sessions.whoAmI({});
  expect(me).toMatchObject({ userId: acme.adminId, orgId: acme.orgId, roles: ['admin'], email: acme.adminEmail });
  expect(me.permissions).toContain('jobs.create');
});

test('a new signing key is published before it signs, and the old one verifies until its tokens are gone', async () => {
  const keys = signingKeys(mad.database, masterKey(mad.config.masterKey));
  const before = await keys.current();
  await keys.rotate();
  expect((await keys.publicKeys()).map(({ kid }) => kid)).toEqual([before.kid]);
  await keys.rotate({ force: true });
  expect(await keys.publicKeys()).toHaveLength(2);
  expect((await keys.current()).kid).toBe(before.kid);

  // A quarter of an hour later.
  await mad.superuser.query(`UPDATE identity.signing_keys SET not_before = not_before - interval '16 min'`);
  const later = signingKeys(mad.database, masterKey(mad.config.masterKey));
  const now = await later.current();
  expect(now.kid).not.toBe(before.kid);
  expect((await later.publicKeys()).map(({ kid }) => kid)).toContain(before.kid);

  await mad.superuser.query(`UPDATE identity.signing_keys SET retire_at = now() WHERE state = 'retiring'`);
  await later.rotate();
  expect((await later.publicKeys()).map(({ kid }) => kid)).toEqual([now.kid]);
  expect(decodeProtectedHeader(mad.platformToken).kid).toBe(before.kid);
});

test('the private key is sealed: neither readable in the table nor openable under another master key', async () => {
  const { rows } = await mad.superuser.query('SELECT private_key FROM identity.signing_keys');
  for (const { private_key: sealed } of rows as { private_key: Buffer }[]) {
    expect(sealed.toString('latin1')).not.toContain('"d"');
  }
  const keys = signingKeys(mad.database, masterKey(Buffer.alloc(32, 7)));
  await expect(keys.current()).rejects.toThrow();
});
