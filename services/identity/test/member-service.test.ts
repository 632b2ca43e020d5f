import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Code } from '@connectrpc/connect';
import { errorMetadataOf, reasonOf, violationsOf } from '@mad/rpc';
import { failure, PASSWORD, runIdentity, type TestIdentity, type TestOrganization } from './running-identity.ts';

let mad: TestIdentity;
let acme: TestOrganization;

beforeAll(async () => {
  mad = await runIdentity();
  acme = await mad.organization('acme');
});
afterAll(() => mad.close());

let count = 0;
function newMember(roles = ['user'], of: TestOrganization = acme) {
  count += 1;
  return { orgId: of.orgId, requestId: randomUUID(), email: `m${count}@${of.slug}.test`, password: PASSWORD, roles };
}

/** Adds a member with these roles and signs them in. */
async function member(roles: string[]) {
  const request = newMember(roles);
  const added = (await acme.admin.members.addMember(request)).member!;
  const { tokens } = await mad.as().sessions.login({ email: request.email, password: PASSWORD, organization: 'acme' });
  return { ...added, userId: added.user!.userId, email: request.email, clients: mad.as(tokens!.accessToken), tokens };
}

test('a member is added, read, listed, given other roles and taken out', async () => {
  const request = { ...newMember(), displayName: `Ann "Robert'); DROP TABLE users;--"` };
  const { member: added } = await acme.admin.members.addMember(request);
  expect(added).toMatchObject({ orgId: acme.orgId, roles: ['user'], user: { email: request.email, enabled: true } });
  const userId = added!.user!.userId;
  const { orgId } = acme;
  const read = (await acme.admin.members.getMember({ orgId, userId })).member!;
  expect(read.user!.displayName).toBe(request.displayName);
  const change = { orgId, userId, requestId: randomUUID(), roles: ['admin', 'user'] };
  expect((await acme.admin.members.updateMember(change)).member!.roles).toEqual(['admin', 'user']);
  await acme.admin.members.removeMember({ orgId, userId, requestId: randomUUID() });
  const gone = await failure(acme.admin.members.getMember({ orgId, userId }));
  expect(gone.code).toBe(Code.NotFound);
  const { events } = await acme.admin.audit.listAuditEvents({ orgId, pageSize: 3 });
  expect(events.map(({ action, entityId, outcome }) => [action, entityId, outcome])).toEqual([
    ['members.delete', userId, 'ok'],
    ['members.update', userId, 'ok'],
    ['members.create', userId, 'ok'],
  ]);
  expect(events[1]).toMatchObject({ userId: acme.adminId, actorKind: 'user', requestId: change.requestId });
});

test('a repeated request adds nobody twice, and leaves one audit event', async () => {
  const request = newMember();
  const [first, second] = [await acme.admin.members.addMember(request), await acme.admin.members.addMember(request)];
  expect(second).toEqual(first);
  const { events } = await acme.admin.audit.listAuditEvents({ orgId: acme.orgId, action: 'members.create' });
  expect(events.filter(({ requestId }) => requestId === request.requestId)).toHaveLength(1);
  const differing = await failure(acme.admin.members.addMember({ ...request, roles: ['admin'] }));
  expect(errorMetadataOf(differing)['fields']).toBe('roles');
  const again = await failure(acme.admin.members.addMember({ ...request, requestId: randomUUID() }));
  expect([again.code, errorMetadataOf(again)['field']]).toEqual([Code.AlreadyExists, 'email']);
});

test('an account that exists joins with its own password and name', async () => {
  const globex = await mad.organization('globex');
  const request = newMember();
  await acme.admin.members.addMember({ ...request, displayName: 'Ann' });
  const { member: joined } = await globex.admin.members.addMember({
    ...newMember(['user'], globex),
    email: request.email.toUpperCase(),
    displayName: 'Somebody else',
    password: 'another password here',
  });
  expect(joined!.user!.displayName).toBe('Ann');
  const credentials = { email: request.email, organization: 'globex' };
  await mad.as().sessions.login({ ...credentials, password: PASSWORD });
  await failure(mad.as().sessions.login({ ...credentials, password: 'another password here' }));
});

test.each([
  ['email', { email: 'no address' }],
  ['email', { email: '' }],
  ['password', { password: 'short' }],
  ['display_name', { displayName: 'nul \u0000' }],
  ['roles', { roles: [] }],
  ['roles[0]', { roles: ['no-such-role'] }],
  ['roles[0]', { roles: [`'; DROP TABLE roles; --`] }],
  ['roles[1]', { roles: ['user', 'super_admin'] }],
])('a bad %s is refused and named (case %#)', async (field, change) => {
  const error = await failure(acme.admin.members.addMember({ ...newMember(), ...change }));
  expect(error.code).toBe(Code.InvalidArgument);
  expect(violationsOf(error).map((violation) => violation.field)).toEqual([field]);
});

test('members are listed in the order they joined, page by page', async () => {
  for (let n = 0; n < 3; n += 1) await acme.admin.members.addMember(newMember());
  const seen: string[] = [];
  let pageToken = '';
  do {
    const page = await acme.admin.members.listMembers({ orgId: acme.orgId, pageSize: 2, pageToken });
    seen.push(...page.members.map(({ user }) => user!.userId));
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  const { members } = await acme.admin.members.listMembers({ orgId: acme.orgId, pageSize: 1000 });
  expect(seen).toEqual(members.map(({ user }) => user!.userId));
  expect(new Set(seen).size).toBe(seen.length);
  expect(seen[0]).toBe(acme.adminId);
  const page = await acme.admin.members.listMembers({ orgId: acme.orgId, pageSize: 1 });
  const foreign = await failure(acme.admin.roles.listRoles({ orgId: acme.orgId, pageToken: page.nextPageToken }));
  expect(violationsOf(foreign)[0]?.field).toBe('page_token');
});

test('a user reads what is there and administers nothing', async () => {
  const { clients } = await member(['user']);
  const { orgId } = acme;
  await clients.members.listMembers({ orgId });
  await clients.roles.listRoles({ orgId });
  await clients.organizations.getOrganization({ orgId });
  for (const call of [
    () => clients.members.addMember(newMember()),
    () => clients.members.removeMember({ orgId, userId: acme.adminId, requestId: randomUUID() }),
    () => clients.roles.createRole({ orgId, requestId: randomUUID(), name: 'x', permissions: ['jobs.create'] }),
    () => clients.audit.listAuditEvents({ orgId }),
    () => clients.organizations.updateOrganizationSettings({ orgId, requestId: randomUUID(), config: {} }),
  ]) {
    const error = await failure(call());
    expect([error.code, reasonOf(error)]).toEqual([Code.PermissionDenied, 'PERMISSION_MISSING']);
  }
});

test('nobody gives, or takes, what they do not hold', async () => {
  const { orgId } = acme;
  const permissions = [
    'members.create',
    'members.update',
    'members.delete',
    'members.read',
    'roles.create',
    'jobs.read',
  ];
  const name = 'recruiter';
  await acme.admin.roles.createRole({ orgId, requestId: randomUUID(), name, permissions });
  const { clients, userId } = await member([name]);
  await clients.members.addMember(newMember([name]));
  for (const call of [
    () => clients.members.addMember(newMember(['admin'])),
    () => clients.members.updateMember({ orgId, userId, requestId: randomUUID(), roles: ['admin'] }),
    () => clients.members.updateMember({ orgId, userId: acme.adminId, requestId: randomUUID(), roles: [name] }),
    () => clients.members.removeMember({ orgId, userId: acme.adminId, requestId: randomUUID() }),
    () => clients.roles.createRole({ orgId, requestId: randomUUID(), name: 'more', permissions: ['audit.read'] }),
  ]) {
    const error = await failure(call());
    expect([error.code, reasonOf(error)]).toEqual([Code.PermissionDenied, 'PERMISSION_MISSING']);
  }
});

test('an organization keeps an administrator, also when two remove each other at once', async () => {
  const solo = await mad.organization('solo');
  const { orgId, admin, adminId } = solo;
  const last = await failure(admin.members.removeMember({ orgId, userId: adminId, requestId: randomUUID() }));
  expect([last.code, reasonOf(last)]).toEqual([Code.FailedPrecondition, 'IN_USE']);
  const demoted = { orgId, userId: adminId, requestId: randomUUID(), roles: ['user'] };
  expect((await failure(admin.members.updateMember(demoted))).code).toBe(Code.FailedPrecondition);

  const request = newMember(['admin'], solo);
  const second = (await admin.members.addMember(request)).member!.user!.userId;
  const remove = (userId: string) => admin.members.removeMember({ orgId, userId, requestId: randomUUID() });
  const results = await Promise.allSettled([remove(adminId), remove(second)]);
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  const { rows } = await mad.superuser.query('SELECT count(*)::int AS n FROM identity.memberships WHERE org_id = $1', [
    orgId,
  ]);
  expect(rows[0].n).toBe(1);
});

test('who is taken out loses sessions and tokens there', async () => {
  const { clients, userId, email, tokens } = await member(['user']);
  const { orgId } = acme;
  const api = await clients.tokens.createToken({ orgId, name: 'ci' });
  await acme.admin.members.removeMember({ orgId, userId, requestId: randomUUID() });
  const { refreshToken } = tokens!;
  expect((await failure(mad.as().sessions.refreshSession({ refreshToken }))).code).toBe(Code.Unauthenticated);
  expect((await failure(mad.as().sessions.exchangeToken({ token: api.secret }))).code).toBe(Code.Unauthenticated);
  expect((await failure(mad.as().sessions.login({ email, password: PASSWORD }))).code).toBe(Code.Unauthenticated);
});

test('the quota of members is kept, also by several at once', async () => {
  const small = await mad.organization('small');
  const { orgId } = small;
  const quotas = { orgId, requestId: randomUUID(), quotas: { maxMembers: 3 }, updateMask: { paths: ['quotas'] } };
  await mad.platform.organizations.updateOrganization(quotas);
  const results = await Promise.allSettled(
    Array.from({ length: 5 }, () => small.admin.members.addMember(newMember(['user'], small))),
  );
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(2);
  const error = await failure(small.admin.members.addMember(newMember(['user'], small)));
  expect([error.code, reasonOf(error)]).toEqual([Code.ResourceExhausted, 'QUOTA_EXCEEDED']);
  expect(errorMetadataOf(error)).toMatchObject({ quota: 'max_members', limit: '3' });
});

test('roles are made, changed, kept while held, and deleted', async () => {
  const { orgId } = acme;
  const { roles } = acme.admin;
  const made = { orgId, requestId: randomUUID(), name: 'chemist', permissions: ['molecules.create', 'jobs.read'] };
  const role = (await roles.createRole(made)).role!;
  expect(role).toMatchObject({
    orgId,
    name: 'chemist',
    permissions: ['jobs.read', 'molecules.create'],
    builtIn: false,
  });
  const taken = await failure(roles.createRole({ ...made, requestId: randomUUID() }));
  expect([taken.code, errorMetadataOf(taken)['field']]).toEqual([Code.AlreadyExists, 'name']);
  const builtIn = await failure(roles.createRole({ ...made, requestId: randomUUID(), name: 'admin' }));
  expect([builtIn.code, errorMetadataOf(builtIn)['field']]).toEqual([Code.AlreadyExists, 'name']);
  const unknown = await failure(
    roles.createRole({ ...made, name: 'x', requestId: randomUUID(), permissions: ['a.b'] }),
  );
  expect(violationsOf(unknown)[0]?.field).toBe('permissions[0]');
  const platform = { ...made, name: 'x', requestId: randomUUID(), permissions: ['platform.seed'] };
  expect(violationsOf(await failure(roles.createRole(platform)))[0]?.field).toBe('permissions[0]');
  const named = await failure(roles.createRole({ ...made, requestId: randomUUID(), name: `x'; --` }));
  expect(violationsOf(named)[0]?.field).toBe('name');

  const { clients } = await member(['chemist']);
  const { roleId } = role;
  expect((await clients.sessions.whoAmI({})).permissions).toEqual(['jobs.read', 'molecules.create']);
  const change = { orgId, roleId, requestId: randomUUID(), permissions: ['jobs.read'] };
  expect((await roles.updateRole(change)).role!.permissions).toEqual(['jobs.read']);
  const held = await failure(roles.deleteRole({ orgId, roleId, requestId: randomUUID() }));
  expect([held.code, reasonOf(held)]).toEqual([Code.FailedPrecondition, 'IN_USE']);
  await mad.superuser.query('DELETE FROM identity.membership_roles WHERE role_id = $1', [roleId]);
  await roles.deleteRole({ orgId, roleId, requestId: randomUUID() });
  expect((await failure(roles.updateRole({ ...change, requestId: randomUUID() }))).code).toBe(Code.NotFound);
});

test('built-in roles are seen by everybody and changed by nobody; the platform’s is given to no member', async () => {
  const { orgId } = acme;
  const { roles } = await acme.admin.roles.listRoles({ orgId, pageSize: 1000 });
  const builtIn = roles.filter((role) => role.builtIn);
  expect(builtIn.map(({ name }) => name)).toEqual(['admin', 'super_admin', 'user']);
  for (const { roleId } of builtIn) {
    const change = { orgId, roleId, requestId: randomUUID(), permissions: ['jobs.read'] };
    const error = await failure(acme.admin.roles.updateRole(change));
    expect([error.code, reasonOf(error)]).toEqual([Code.FailedPrecondition, 'IMMUTABLE']);
    const gone = await failure(acme.admin.roles.deleteRole({ orgId, roleId, requestId: randomUUID() }));
    expect(reasonOf(gone)).toBe('IMMUTABLE');
  }
  const first = await acme.admin.roles.listRoles({ orgId, pageSize: 1 });
  const second = await acme.admin.roles.listRoles({ orgId, pageSize: 1, pageToken: first.nextPageToken });
  expect(second.roles[0]!.name > first.roles[0]!.name).toBe(true);
});

test('seeding again changes nothing', async () => {
  const count = await mad.platform.platform.seedIdentity({});
  expect(count.created).toBe(0);
  expect(count.existing).toBeGreaterThan(30);
});
