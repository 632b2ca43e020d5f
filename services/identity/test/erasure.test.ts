import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Code } from '@connectrpc/connect';
import { reasonOf, violationsOf } from '@mad/rpc';
import { serviceToken } from '@mad/testing';
import {
  eventually,
  failure,
  OperationState,
  OrganizationStatus,
  PASSWORD,
  runIdentity,
  type TestIdentity,
  type TestOrganization,
} from './running-identity.ts';

let mad: TestIdentity;

beforeAll(async () => {
  mad = await runIdentity();
});
afterAll(() => mad.close());

async function statusOf(orgId: string): Promise<OrganizationStatus> {
  const { organizations } = await mad.platform.organizations.listOrganizations({ pageSize: 1000 });
  return organizations.find((organization) => organization.orgId === orgId)!.status;
}

const ask = ({ orgId, slug }: TestOrganization, requestId = randomUUID()) =>
  mad.platform.organizations.eraseOrganization({ orgId, requestId, slug, reason: 'contract ended' });

/** What the provisioner does when everything else is gone. */
async function eraseRows(orgId: string) {
  return mad.as(await serviceToken('provisioner')).erasure.eraseOrganization({ orgId });
}

const TABLES = [
  'memberships',
  'membership_roles',
  'tokens',
  'roles',
  'user_sessions',
  'org_settings',
  'idempotency_keys',
];

async function rowsOf(orgId: string): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const table of TABLES) {
    const { rows } = await mad.superuser.query(`SELECT count(*)::int AS n FROM identity.${table} WHERE org_id = $1`, [
      orgId,
    ]);
    counts[table] = rows[0].n;
  }
  return counts;
}

async function furnish(slug: string): Promise<TestOrganization> {
  const organization = await mad.organization(slug);
  const { orgId, admin } = organization;
  await admin.tokens.createToken({ orgId, name: 'ci', requestId: randomUUID() });
  await admin.roles.createRole({ orgId, requestId: randomUUID(), name: 'chemist', permissions: ['jobs.read'] });
  return organization;
}

test('asking for an erasure shuts the organization at once and tells the provisioner, once', async () => {
  mad.neighbour.erasing = OperationState.RUNNING;
  const acme = await furnish('acme');
  const requestId = randomUUID();
  const asked = await ask(acme, requestId);
  expect(asked.organization!.status).toBe(OrganizationStatus.ERASING);
  expect((await ask(acme, requestId)).erasureId).toBe(asked.erasureId);
  await eventually(
    'the provisioner was told',
    async () =>
      mad.neighbour.calls.some((call) => call.startsWith(`erase ${acme.orgId} ${asked.erasureId} acme `)) || undefined,
  );
  const login = await failure(
    mad.as().sessions.login({ email: acme.adminEmail, password: PASSWORD, organization: 'acme' }),
  );
  expect(reasonOf(login)).toBe('TENANT_SUSPENDED');
  const read = await failure(acme.admin.organizations.getOrganization({ orgId: acme.orgId }));
  expect(read.code).toBe(Code.FailedPrecondition);
  // Nothing else can be done with it, and it is not asked for twice.
  const { orgId } = acme;
  for (const call of [
    () => ask(acme),
    () => mad.platform.organizations.resumeOrganization({ orgId, requestId: randomUUID() }),
    () => mad.platform.organizations.suspendOrganization({ orgId, requestId: randomUUID() }),
    () =>
      mad.platform.members.addFirstMember({ orgId, requestId: randomUUID(), email: 'x@acme.test', password: PASSWORD }),
  ]) {
    const refused = await failure(call());
    expect([refused.code, reasonOf(refused)]).toEqual([Code.FailedPrecondition, 'STATE_CONFLICT']);
  }
});

test('rows go, people who belong nowhere else become unrecognizable, and the audit chain holds', async () => {
  const [gone, stays] = [await furnish('gone'), await furnish('stays')];
  // One person belongs to both.
  await stays.admin.members.addMember({
    orgId: stays.orgId,
    requestId: randomUUID(),
    email: 'both@people.test',
    displayName: 'Both',
    password: PASSWORD,
    roles: ['user'],
  });
  await gone.admin.members.addMember({
    orgId: gone.orgId,
    requestId: randomUUID(),
    email: 'both@people.test',
    roles: ['user'],
  });
  const kept = await rowsOf(stays.orgId);
  await ask(gone);
  const { done, rows } = await eraseRows(gone.orgId);
  expect(done).toBe(true);
  expect(rows).toMatchObject({ memberships: 2n, tokens: 1n, roles: 1n, role_permissions: 1n, users: 1n });
  // A repeat removes nothing, and answers the same.
  expect(await eraseRows(gone.orgId)).toMatchObject({ done: true, rows });

  expect(await rowsOf(gone.orgId)).toEqual(Object.fromEntries(TABLES.map((table) => [table, 0])));
  expect(await rowsOf(stays.orgId)).toEqual(kept);
  const people = await mad.superuser.query(
    'SELECT email::text, display_name, hashed_password IS NULL AS no_password, enabled FROM identity.users WHERE user_id = $1',
    [gone.adminId],
  );
  expect(people.rows).toEqual([
    { email: `erased-${gone.adminId}@erased.invalid`, display_name: '', no_password: true, enabled: false },
  ]);
  const both = await mad.superuser.query(
    `SELECT display_name, enabled FROM identity.users WHERE email = 'both@people.test'`,
  );
  expect(both.rows).toEqual([{ display_name: 'Both', enabled: true }]);
  const login = await failure(mad.as().sessions.login({ email: gone.adminEmail, password: PASSWORD }));
  expect([login.code, reasonOf(login)]).toEqual([Code.Unauthenticated, 'CREDENTIALS_WRONG']);

  const { organizations } = await mad.platform.organizations.listOrganizations({ pageSize: 1000 });
  expect(organizations.find(({ orgId }) => orgId === gone.orgId)).toMatchObject({
    status: OrganizationStatus.ERASED,
    slug: `erased-${gone.orgId.replaceAll('-', '')}`,
    name: `erased ${gone.orgId}`,
  });
  const { verifyChain } = await import('../src/audit/verify.ts');
  const chain = await mad.database.asSystem((tx) => verifyChain(tx, gone.orgId));
  expect(chain.brokenSeq).toBe(0);
  expect(chain.checked).toBeGreaterThan(3);
  const events = await mad.superuser.query<{ action: string }>(
    'SELECT action FROM identity.audit_logs WHERE org_id = $1 ORDER BY seq',
    [gone.orgId],
  );
  expect(events.rows.map(({ action }) => action)).toEqual(
    expect.arrayContaining(['organizations.create', 'organizations.erase', 'organizations.erased']),
  );
});

test('the slug is free again, for another organization under another id', async () => {
  const first = await furnish('phoenix');
  await ask(first);
  const taken = await failure(
    mad.platform.organizations.createOrganization({ requestId: randomUUID(), name: 'Phoenix', slug: 'phoenix' }),
  );
  expect(taken.code).toBe(Code.AlreadyExists);
  await eraseRows(first.orgId);
  const second = await mad.organization('phoenix');
  expect(second.orgId).not.toBe(first.orgId);
  const old = await failure(first.admin.organizations.getOrganization({ orgId: first.orgId }));
  expect(old.code).toBe(Code.FailedPrecondition);
  expect((await second.admin.members.listMembers({ orgId: second.orgId })).members).toHaveLength(1);
});

test('an erasure that was given up leaves a suspended organization, which can be resumed', async () => {
  mad.neighbour.erasing = OperationState.CANCELLED;
  try {
    const spared = await furnish('spared');
    await ask(spared);
    await eventually('suspended', async () =>
      (await statusOf(spared.orgId)) === OrganizationStatus.SUSPENDED ? true : undefined,
    );
    const { orgId } = spared;
    await mad.platform.organizations.resumeOrganization({ orgId, requestId: randomUUID() });
    expect((await rowsOf(orgId))['memberships']).toBe(1);
  } finally {
    mad.neighbour.erasing = OperationState.RUNNING;
  }
});

test('another slug, an unknown organization and whoever may not are refused', async () => {
  const careful = await furnish('careful');
  const slip = await failure(
    mad.platform.organizations.eraseOrganization({ orgId: careful.orgId, requestId: randomUUID(), slug: 'carefull' }),
  );
  expect([slip.code, violationsOf(slip)[0]!.field]).toEqual([Code.InvalidArgument, 'slug']);
  const unknown = await failure(
    mad.platform.organizations.eraseOrganization({ orgId: randomUUID(), requestId: randomUUID(), slug: 'careful' }),
  );
  expect([unknown.code, reasonOf(unknown)]).toEqual([Code.NotFound, 'ORGANIZATION_NOT_FOUND']);
  const member = await failure(
    careful.admin.organizations.eraseOrganization({ orgId: careful.orgId, requestId: randomUUID(), slug: 'careful' }),
  );
  expect(member.code).toBe(Code.PermissionDenied);
  // Nor does identity give its rows away before somebody asked for it, or to anybody but the provisioner.
  const early = await failure(eraseRows(careful.orgId));
  expect([early.code, reasonOf(early)]).toEqual([Code.FailedPrecondition, 'STATE_CONFLICT']);
  const catalog = mad.as(await serviceToken('catalog'));
  expect((await failure(catalog.erasure.eraseOrganization({ orgId: careful.orgId }))).code).toBe(Code.PermissionDenied);
  expect(await statusOf(careful.orgId)).toBe(OrganizationStatus.ACTIVE);
});
