import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import { reasonOf, violationsOf } from '@mad/rpc';
import { decodeJwt } from 'jose';
import { failure, PASSWORD, runIdentity, type TestIdentity, type TestOrganization } from './running-identity.ts';

let mad: TestIdentity;
let acme: TestOrganization;

beforeAll(async () => {
  mad = await runIdentity();
  acme = await mad.organization('acme');
});
afterAll(() => mad.close());

const exchange = async (token: string) => (await mad.as().sessions.exchangeToken({ token })).tokens!;
const permissionsOf = (accessToken: string) => decodeJwt(accessToken)['perms'] as string[];

test('a token is made, shown once, exchanged, listed with its last use, and revoked', async () => {
  const { orgId } = acme;
  const { tokens } = acme.admin;
  const made = await tokens.createToken({ orgId, name: `ci '); --`, scopes: ['jobs.read', 'jobs.create'], days: 7 });
  expect(made.secret).toMatch(/^mad_[a-z0-9]{10}_[A-Za-z0-9_-]{43}$/);
  expect(made.secret.startsWith(made.token!.prefix)).toBe(true);
  const days = (timestampDate(made.token!.expireTime!).getTime() - Date.now()) / 86_400_000;
  expect(days).toBeCloseTo(7, 1);

  const pair = await exchange(made.secret);
  expect(pair.refreshToken).toBe('');
  expect(permissionsOf(pair.accessToken)).toEqual(['jobs.create', 'jobs.read']);
  const { rows } = await mad.superuser.query('SELECT digest FROM identity.tokens');
  expect(rows.every(({ digest }) => !made.secret.includes(digest.toString('latin1')))).toBe(true);

  const listed = (await tokens.listTokens({ orgId })).tokens[0]!;
  expect(listed).toMatchObject({ tokenId: made.token!.tokenId, revoked: false });
  expect(timestampDate(listed.lastUseTime!).getTime() % 60_000).toBe(0);
  expect(JSON.stringify(listed, (_key, value) => (typeof value === 'bigint' ? `${value}` : value))).not.toContain(
    made.secret,
  );

  await tokens.revokeToken({ orgId, tokenId: listed.tokenId });
  await tokens.revokeToken({ orgId, tokenId: listed.tokenId });
  const error = await failure(exchange(made.secret));
  expect([error.code, reasonOf(error)]).toEqual([Code.Unauthenticated, 'TOKEN_INVALID']);
});

test('a repeat of a creation returns the token without its secret', async () => {
  const request = { orgId: acme.orgId, name: 'once', requestId: randomUUID() };
  const first = await acme.admin.tokens.createToken(request);
  const second = await acme.admin.tokens.createToken(request);
  expect(second.token).toEqual(first.token);
  expect(second.secret).toBe('');
});

test('an altered, unknown, malformed or expired token is refused', async () => {
  const { orgId } = acme;
  const { secret, token } = await acme.admin.tokens.createToken({ orgId, name: 'x' });
  const altered = secret.slice(0, -2) + (secret.endsWith('AA') ? 'BB' : 'AA');
  for (const bad of [altered, `mad_aaaaaaaaaa_${'A'.repeat(43)}`, 'mad_x', `' OR 1=1 --`]) {
    expect((await failure(exchange(bad))).code).toBe(Code.Unauthenticated);
  }
  const expire = `UPDATE identity.tokens SET created_at = now() - interval '2 d', expires_at = now() - interval '1 d' WHERE token_id = $1`;
  await mad.superuser.query(expire, [token!.tokenId]);
  expect((await failure(exchange(secret))).code).toBe(Code.Unauthenticated);
});

test('scopes are held by the caller, and a limited token cannot make an unlimited one', async () => {
  const { orgId } = acme;
  const { secret } = await acme.admin.tokens.createToken({ orgId, name: 'x', scopes: ['tokens.create', 'jobs.read'] });
  const limited = mad.as((await exchange(secret)).accessToken);
  const more = await failure(limited.tokens.createToken({ orgId, name: 'y', scopes: ['audit.read'] }));
  expect([more.code, reasonOf(more)]).toEqual([Code.PermissionDenied, 'PERMISSION_MISSING']);
  const heir = await limited.tokens.createToken({ orgId, name: 'y' });
  expect(heir.token!.scopes).toEqual(['jobs.read', 'tokens.create']);
  expect(permissionsOf((await exchange(heir.secret)).accessToken)).toEqual(['jobs.read', 'tokens.create']);
  const full = await acme.admin.tokens.createToken({ orgId, name: 'z' });
  expect(full.token!.scopes).toEqual([]);
  expect(permissionsOf((await exchange(full.secret)).accessToken)).toContain('audit.read');
});

test('a token never allows more than its person does now', async () => {
  const { orgId } = acme;
  const email = 'promoted@acme.test';
  const add = { orgId, requestId: randomUUID(), email, password: PASSWORD, roles: ['admin'] };
  const userId = (await acme.admin.members.addMember(add)).member!.user!.userId;
  const { tokens } = await mad.as().sessions.login({ email, password: PASSWORD });
  const { secret } = await mad.as(tokens!.accessToken).tokens.createToken({ orgId, name: 'x', scopes: ['audit.read'] });
  expect(permissionsOf((await exchange(secret)).accessToken)).toEqual(['audit.read']);
  await acme.admin.members.updateMember({ orgId, userId, requestId: randomUUID(), roles: ['user'] });
  expect(permissionsOf((await exchange(secret)).accessToken)).toEqual([]);
});

test('people see and revoke their own tokens only', async () => {
  const { orgId } = acme;
  const add = { orgId, requestId: randomUUID(), email: 'bob@acme.test', password: PASSWORD, roles: ['user'] };
  await acme.admin.members.addMember(add);
  const { tokens } = await mad.as().sessions.login({ email: add.email, password: PASSWORD });
  const bob = mad.as(tokens!.accessToken);
  const { token } = await acme.admin.tokens.createToken({ orgId, name: 'not bob’s' });
  expect((await bob.tokens.listTokens({ orgId })).tokens).toEqual([]);
  expect((await failure(bob.tokens.revokeToken({ orgId, tokenId: token!.tokenId }))).code).toBe(Code.NotFound);
});

test('tokens are listed newest first in pages; bad requests name the field; the quota is kept', async () => {
  const small = await mad.organization('small');
  const { orgId } = small;
  const { tokens } = small.admin;
  const quotas = { orgId, requestId: randomUUID(), quotas: { maxTokens: 3 }, updateMask: { paths: ['quotas'] } };
  await mad.platform.organizations.updateOrganization(quotas);
  for (const name of ['a', 'b', 'c']) await tokens.createToken({ orgId, name });
  const first = await tokens.listTokens({ orgId, pageSize: 2 });
  const second = await tokens.listTokens({ orgId, pageSize: 2, pageToken: first.nextPageToken });
  expect([...first.tokens, ...second.tokens].map(({ name }) => name)).toEqual(['c', 'b', 'a']);
  expect(second.nextPageToken).toBe('');
  const full = await failure(tokens.createToken({ orgId, name: 'd' }));
  expect([full.code, reasonOf(full)]).toEqual([Code.ResourceExhausted, 'QUOTA_EXCEEDED']);
  await tokens.revokeToken({ orgId, tokenId: first.tokens[0]!.tokenId });
  await tokens.createToken({ orgId, name: 'd' });
  for (const [field, change] of [
    ['name', { name: '' }],
    ['name', { name: '\u0007' }],
    ['days', { days: 367 }],
    ['request_id', { requestId: 'x' }],
  ] as const) {
    const error = await failure(tokens.createToken({ orgId, name: 'x', ...change }));
    expect(violationsOf(error).map((violation) => violation.field)).toEqual([field]);
  }
  const scope = await failure(tokens.createToken({ orgId, name: 'x', scopes: ['no such'] }));
  expect(violationsOf(scope)[0]!.field).toBe('scopes[0]');
});
