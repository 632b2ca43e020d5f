import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Code } from '@connectrpc/connect';
import { errorMetadataOf, reasonOf, violationsOf } from '@mad/rpc';
import { serviceToken } from '@mad/testing';
import {
  eventually,
  failure,
  OrganizationStatus,
  PASSWORD,
  runIdentity,
  TenantState,
  type TestIdentity,
} from './running-identity.ts';

let mad: TestIdentity;

beforeAll(async () => {
  mad = await runIdentity({ provisioning: 'eager' });
});
afterAll(() => mad.close());

async function statusOf(orgId: string): Promise<OrganizationStatus> {
  const { organizations } = await mad.platform.organizations.listOrganizations({ pageSize: 1000 });
  return organizations.find((organization) => organization.orgId === orgId)!.status;
}

const active = (orgId: string) =>
  eventually(`${orgId} is active`, async () =>
    (await statusOf(orgId)) === OrganizationStatus.ACTIVE ? true : undefined,
  );

test('an organization is provisioned by the neighbour and then active, and the log says so', async () => {
  const acme = await mad.organization('acme');
  expect(acme).toMatchObject({
    slug: 'acme',
    name: 'The acme',
    status: OrganizationStatus.PROVISIONING,
    region: 'local',
  });
  expect(acme.quotas).toMatchObject({ maxConcurrentJobs: 10, maxMolecules: 1_000_000n, maxRunningTasks: 64 });
  await active(acme.orgId);
  expect(mad.neighbour.calls).toContain(`ensure results ${acme.orgId}`);
  const { events } = await acme.admin.audit.listAuditEvents({ orgId: acme.orgId });
  expect(events.map(({ action }) => action)).toEqual(
    expect.arrayContaining(['organizations.create', 'members.create', 'sessions.login', 'organizations.activate']),
  );
});

test('while the provisioner fails the organization stays provisioning, and becomes active when it recovers', async () => {
  mad.neighbour.state = TenantState.FAILED;
  try {
    const slow = await mad.organization('slow');
    await eventually('two attempts', async () =>
      mad.neighbour.calls.filter((call) => call === `ensure results ${slow.orgId}`).length >= 2 ? true : undefined,
    );
    expect(await statusOf(slow.orgId)).toBe(OrganizationStatus.PROVISIONING);
    mad.neighbour.state = TenantState.READY;
    await active(slow.orgId);
  } finally {
    mad.neighbour.state = TenantState.READY;
  }
});

test('a repeated request_id answers the same; with another payload it says which fields differ', async () => {
  const request = { requestId: randomUUID(), name: 'Twice', slug: 'twice' };
  const first = await mad.platform.organizations.createOrganization(request);
  const again = await mad.platform.organizations.createOrganization(request);
  expect(again.organization!.orgId).toBe(first.organization!.orgId);
  const other = await failure(mad.platform.organizations.createOrganization({ ...request, slug: 'thrice' }));
  expect(other.code).toBe(Code.AlreadyExists);
  expect(reasonOf(other)).toBe('REQUEST_ID_REUSED');
  expect(errorMetadataOf(other)['fields']).toBe('slug');
});

test('a taken name or slug is ALREADY_EXISTS and named', async () => {
  await mad.organization('taken');
  const create = mad.platform.organizations.createOrganization;
  const slug = await failure(create({ requestId: randomUUID(), name: 'Another', slug: 'taken' }));
  expect([slug.code, errorMetadataOf(slug)['field']]).toEqual([Code.AlreadyExists, 'slug']);
  const name = await failure(create({ requestId: randomUUID(), name: 'The taken', slug: 'untaken' }));
  expect([name.code, errorMetadataOf(name)['field']]).toEqual([Code.AlreadyExists, 'name']);
});

test.each([
  ['name', { name: '' }],
  ['name', { name: '   ' }],
  ['name', { name: 'nul \u0000' }],
  ['name', { name: 'x'.repeat(256) }],
  ['slug', { slug: 'Not A Label' }],
  ['slug', { slug: "x'; DROP TABLE identity.users; --" }],
  ['slug', { slug: '-x' }],
  ['region', { region: '../..' }],
  ['request_id', { requestId: 'no uuid' }],
  ['quotas.max_members', { quotas: { maxMembers: -1 } }],
  ['quotas.max_molecules', { quotas: { maxMolecules: 2n ** 60n } }],
])('a bad %s is refused and named (case %#)', async (field, change) => {
  const request = { requestId: randomUUID(), name: 'Fine', slug: 'fine', ...change };
  const error = await failure(mad.platform.organizations.createOrganization(request));
  expect(error.code).toBe(Code.InvalidArgument);
  expect(violationsOf(error).map((violation) => violation.field)).toEqual([field]);
});

test('SQL metacharacters and any script are names like others', async () => {
  for (const [index, name] of [
    `Robert'); DROP TABLE users;--`,
    `"quoted" \\ %_ $1 \${x}`,
    'Ваша организация 🧪',
  ].entries()) {
    const slug = `odd-${index}`;
    const created = await mad.platform.organizations.createOrganization({ requestId: randomUUID(), name, slug });
    expect(created.organization!.name).toBe(name);
  }
  const { rows } = await mad.superuser.query('SELECT count(*)::int AS n FROM identity.users');
  expect(rows[0].n).toBeGreaterThan(0);
});

test('organizations are listed newest first in stable pages; a token of another query is refused', async () => {
  for (const slug of ['page-a', 'page-b', 'page-c']) await mad.organization(slug);
  const seen: string[] = [];
  let pageToken = '';
  do {
    const page = await mad.platform.organizations.listOrganizations({ pageSize: 2, pageToken });
    expect(page.organizations.length).toBeLessThanOrEqual(2);
    seen.push(...page.organizations.map(({ orgId }) => orgId));
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  expect(seen).toEqual([...new Set(seen)].sort().reverse());
  const { nextPageToken } = await mad.platform.organizations.listOrganizations({ pageSize: 1 });
  const list = mad.platform.organizations.listOrganizations;
  const foreign = await failure(list({ pageSize: 1, slug: 'page-a', pageToken: nextPageToken }));
  expect([foreign.code, violationsOf(foreign)[0]?.field]).toEqual([Code.InvalidArgument, 'page_token']);
  const garbage = await failure(list({ pageToken: 'garbage' }));
  expect(violationsOf(garbage)[0]?.field).toBe('page_token');
  const one = await list({ slug: 'page-b' });
  expect(one.organizations.map(({ slug }) => slug)).toEqual(['page-b']);
});

test('an update changes what the mask names, and an old etag is refused', async () => {
  const { orgId, etag } = await mad.organization('changing');
  await active(orgId);
  const update = mad.platform.organizations.updateOrganization;
  const { organization } = await update({
    orgId,
    requestId: randomUUID(),
    name: 'Changed',
    quotas: { maxMembers: 3 },
    updateMask: { paths: ['name'] },
  });
  expect(organization).toMatchObject({ name: 'Changed', quotas: { maxMembers: 1000 } });
  const stale = await failure(
    update({ orgId, requestId: randomUUID(), name: 'x', updateMask: { paths: ['name'] }, etag }),
  );
  expect([stale.code, reasonOf(stale)]).toEqual([Code.Aborted, 'ETAG_MISMATCH']);
  for (const paths of [[], ['slug']]) {
    const error = await failure(update({ orgId, requestId: randomUUID(), updateMask: { paths } }));
    expect(violationsOf(error)[0]?.field).toBe('update_mask');
  }
  const missing = await failure(
    update({ orgId: randomUUID(), requestId: randomUUID(), name: 'x', updateMask: { paths: ['name'] } }),
  );
  expect([missing.code, reasonOf(missing)]).toEqual([Code.NotFound, 'ORGANIZATION_NOT_FOUND']);
});

test('settings are read, changed with an etag, and any JSON but NUL', async () => {
  const { orgId, admin } = await mad.organization('settled');
  const before = (await admin.organizations.getOrganizationSettings({ orgId })).settings!;
  expect(before).toMatchObject({ orgId, storagePrefix: `orgs/${orgId}` });
  const change = { orgId, requestId: randomUUID(), config: { units: 'kcal/mol', odd: "'; --" }, etag: before.etag };
  const after = (await admin.organizations.updateOrganizationSettings(change)).settings!;
  expect(after.config).toEqual(change.config);
  const stale = await failure(admin.organizations.updateOrganizationSettings({ ...change, requestId: randomUUID() }));
  expect(reasonOf(stale)).toBe('ETAG_MISMATCH');
  const nul = { orgId, requestId: randomUUID(), config: { x: 'a\u0000b' } };
  expect(violationsOf(await failure(admin.organizations.updateOrganizationSettings(nul)))[0]?.field).toBe('config');
});

test('a suspended organization is told to the provisioner, and nobody of it gets in until it is resumed', async () => {
  const { orgId, admin, adminEmail } = await mad.organization('paused');
  await active(orgId);
  const credentials = { email: adminEmail, password: PASSWORD, organization: 'paused' };
  const session = await mad.as().sessions.login(credentials);
  const token = await admin.tokens.createToken({ orgId, name: 'ci' });

  const { organization } = await mad.platform.organizations.suspendOrganization({
    orgId,
    requestId: randomUUID(),
    reason: 'unpaid',
  });
  expect(organization!.status).toBe(OrganizationStatus.SUSPENDED);
  await eventually('told', async () => (mad.neighbour.calls.includes(`suspend ${orgId}`) ? true : undefined));
  for (const call of [
    () => mad.as().sessions.login(credentials),
    () => mad.as().sessions.refreshSession({ refreshToken: session.tokens!.refreshToken }),
    () => mad.as().sessions.exchangeToken({ token: token.secret }),
    () => mad.platform.sessions.actOnOrganization({ orgId, reason: 'look' }),
    () => admin.organizations.getOrganization({ orgId }),
    () => admin.members.listMembers({ orgId }),
    () => admin.tokens.createToken({ orgId, name: 'ci' }),
  ]) {
    const error = await failure(call());
    expect([error.code, reasonOf(error)]).toEqual([Code.FailedPrecondition, 'TENANT_SUSPENDED']);
  }

  await mad.platform.organizations.resumeOrganization({ orgId, requestId: randomUUID() });
  await eventually('told', async () => (mad.neighbour.calls.includes(`resume ${orgId}`) ? true : undefined));
  // Its sessions ended with the suspension; people sign in anew, and tokens work again.
  const ended = await failure(mad.as().sessions.refreshSession({ refreshToken: session.tokens!.refreshToken }));
  expect(ended.code).toBe(Code.Unauthenticated);
  await mad.as().sessions.login(credentials);
  await mad.as().sessions.exchangeToken({ token: token.secret });
});

test('a read-only organization is told to the provisioner; its people get in and read, and change nothing until it is resumed', async () => {
  const { orgId, admin, adminEmail } = await mad.organization('museum');
  await active(orgId);
  const credentials = { email: adminEmail, password: PASSWORD, organization: 'museum' };
  const session = await mad.as().sessions.login(credentials);
  const request = { orgId, requestId: randomUUID(), reason: 'audit' };
  const { organization } = await mad.platform.organizations.freezeOrganization(request);
  expect(organization!.status).toBe(OrganizationStatus.READ_ONLY);
  expect(await mad.platform.organizations.freezeOrganization(request)).toMatchObject({ organization });
  await eventually('told', async () => (mad.neighbour.calls.includes(`freeze ${orgId}`) ? true : undefined));
  await mad.as().sessions.refreshSession({ refreshToken: session.tokens!.refreshToken });
  expect((await admin.organizations.getOrganization({ orgId })).organization!.status).toBe(
    OrganizationStatus.READ_ONLY,
  );
  const error = await failure(admin.tokens.createToken({ orgId, name: 'ci' }));
  expect([error.code, error.rawMessage]).toEqual([Code.FailedPrecondition, 'the organization is read-only']);

  await mad.platform.organizations.resumeOrganization({ orgId, requestId: randomUUID() });
  await eventually('told', async () => (mad.neighbour.calls.includes(`resume ${orgId}`) ? true : undefined));
  await admin.tokens.createToken({ orgId, name: 'ci' });
});

test('an organization that is not in use yet cannot be suspended', async () => {
  mad.neighbour.state = TenantState.CREATING;
  try {
    const { orgId } = await mad.organization('early');
    const suspend = mad.platform.organizations.suspendOrganization({ orgId, requestId: randomUUID() });
    const error = await failure(suspend);
    expect([error.code, reasonOf(error)]).toEqual([Code.FailedPrecondition, 'STATE_CONFLICT']);
  } finally {
    mad.neighbour.state = TenantState.READY;
  }
});

test('another service reads an organization by its id; an unknown one is NOT_FOUND', async () => {
  const { orgId } = await mad.organization('described');
  const catalog = mad.as(await serviceToken('catalog'));
  const { organization } = await catalog.organizations.describeOrganization({ orgId });
  expect(organization!.slug).toBe('described');
  const error = await failure(catalog.organizations.describeOrganization({ orgId: randomUUID() }));
  expect([error.code, reasonOf(error)]).toEqual([Code.NotFound, 'ORGANIZATION_NOT_FOUND']);
});

test('catalog reads an organization with its members and live tokens counted, and the list of all', async () => {
  const { orgId, admin } = await mad.organization('counted');
  const { orgId: other } = await mad.organization('counted-too');
  const token = (name: string) => admin.tokens.createToken({ orgId, name, requestId: randomUUID() });
  await token('kept');
  const { token: gone } = await token('gone');
  await admin.tokens.revokeToken({ orgId, tokenId: gone!.tokenId });
  const catalog = mad.as(await serviceToken('catalog'));
  const { use } = await catalog.organizations.getOrganizationUse({ orgId });
  expect(use).toMatchObject({ organization: { slug: 'counted' }, members: 1n, tokens: 1n });

  const listed = [];
  let pageToken = '';
  do {
    const page = await catalog.organizations.listOrganizationUse({ pageSize: 2, pageToken });
    expect(page.uses.length).toBeLessThanOrEqual(2);
    listed.push(...page.uses);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  const { rows } = await mad.superuser.query('SELECT org_id FROM identity.organizations ORDER BY org_id DESC');
  expect(listed.map(({ organization }) => organization!.orgId)).toEqual(rows.map((row) => row.org_id));
  expect(listed.find(({ organization }) => organization!.orgId === orgId)).toMatchObject({ members: 1n, tokens: 1n });
  expect(listed.find(({ organization }) => organization!.orgId === other)).toMatchObject({ members: 1n, tokens: 0n });

  const unknown = await failure(catalog.organizations.getOrganizationUse({ orgId: randomUUID() }));
  expect([unknown.code, reasonOf(unknown)]).toEqual([Code.NotFound, 'ORGANIZATION_NOT_FOUND']);
  const forged = Buffer.from(JSON.stringify(['x', "' OR 1=1 --"])).toString('base64url');
  const bad = await failure(catalog.organizations.listOrganizationUse({ pageToken: forged }));
  expect([bad.code, violationsOf(bad)[0]!.field]).toEqual([Code.InvalidArgument, 'page_token']);
  const results = mad.as(await serviceToken('results'));
  expect((await failure(results.organizations.listOrganizationUse({}))).code).toBe(Code.PermissionDenied);
  expect((await failure(admin.organizations.getOrganizationUse({ orgId }))).code).toBe(Code.Unauthenticated);
});
