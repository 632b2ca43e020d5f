import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { reasonOf } from '@mad/rpc';
import pg from 'pg';
import { failure, runIdentity, type TestIdentity, type TestOrganization } from './running-identity.ts';

let mad: TestIdentity;
let acme: TestOrganization;
let globex: TestOrganization;

beforeAll(async () => {
  mad = await runIdentity();
  acme = await mad.organization('acme');
  globex = await mad.organization('globex');
  for (const { orgId, admin } of [acme, globex]) {
    await admin.tokens.createToken({ orgId, name: 'ci' });
    await admin.roles.createRole({ orgId, requestId: randomUUID(), name: 'chemist', permissions: ['jobs.read'] });
  }
});
afterAll(() => mad.close());

/** Every user method that names an organization, called by somebody on what is another's. */
async function callsOf(by: TestOrganization, on: TestOrganization): Promise<Record<string, () => Promise<unknown>>> {
  const { orgId, adminId: userId } = on;
  const requestId = randomUUID();
  const roleId = (await on.admin.roles.listRoles({ orgId })).roles.find(({ builtIn }) => !builtIn)!.roleId;
  const tokenId = (await on.admin.tokens.listTokens({ orgId })).tokens[0]!.tokenId;
  const { audit, members, organizations, roles, tokens } = by.admin;
  const email = `spy-${requestId}@evil.test`;
  const permissions = ['jobs.read'];
  return {
    getOrganization: () => organizations.getOrganization({ orgId }),
    getOrganizationSettings: () => organizations.getOrganizationSettings({ orgId }),
    updateOrganizationSettings: () => organizations.updateOrganizationSettings({ orgId, requestId, config: {} }),
    addMember: () => members.addMember({ orgId, requestId, email, roles: ['admin'] }),
    getMember: () => members.getMember({ orgId, userId }),
    listMembers: () => members.listMembers({ orgId }),
    updateMember: () => members.updateMember({ orgId, userId, requestId, roles: ['user', 'admin'] }),
    removeMember: () => members.removeMember({ orgId, userId, requestId }),
    createRole: () => roles.createRole({ orgId, requestId, name: 'spy', permissions }),
    listRoles: () => roles.listRoles({ orgId }),
    updateRole: () => roles.updateRole({ orgId, roleId, requestId, permissions }),
    deleteRole: () => roles.deleteRole({ orgId, roleId, requestId }),
    createToken: () => tokens.createToken({ orgId, name: 'spy' }),
    listTokens: () => tokens.listTokens({ orgId }),
    revokeToken: () => tokens.revokeToken({ orgId, tokenId }),
    listAuditEvents: () => audit.listAuditEvents({ orgId }),
    verifyAuditChain: () => audit.verifyAuditChain({ orgId }),
  };
}

test('another organization’s token finds nothing of it, by any method, and changes nothing', async () => {
  const dump = async (): Promise<unknown> => {
    const tables = ['memberships', 'membership_roles', 'roles', 'tokens', 'org_settings', 'audit_logs'];
    const all = tables.map((table) =>
      mad.superuser.query(`SELECT * FROM identity.${table} WHERE org_id = $1`, [globex.orgId]),
    );
    return (await Promise.all(all)).map(({ rows }) => rows);
  };
  const calls = await callsOf(acme, globex);
  const before = await dump();
  for (const [method, call] of Object.entries(calls)) {
    const error = await failure(call());
    expect([method, error.code, reasonOf(error)]).toEqual([method, Code.NotFound, 'ORGANIZATION_NOT_FOUND']);
  }
  expect(await dump()).toEqual(before);
  // The same calls are good ones: on its own organization the caller gets through the same door.
  await acme.admin.organizations.getOrganization({ orgId: acme.orgId });
});

test('the list above names every user method of identity that names an organization', async () => {
  const { access, Audience } = await import('@mad/proto/access');
  const { getOption } = await import('@bufbuild/protobuf');
  const { routes } = await import('../src/routes.ts');
  const methods = routes({} as never)
    .flatMap(({ service }) => service.methods)
    .filter((method) => getOption(method, access).audience === Audience.USER && method.input.field['orgId'])
    .map(({ localName }) => localName);
  expect(Object.keys(await callsOf(acme, acme)).sort()).toEqual(methods.sort());
});

test('another’s ids under one’s own organization are NOT_FOUND', async () => {
  const { orgId } = acme;
  const { members, roles, tokens } = acme.admin;
  const requestId = randomUUID();
  const role = (await globex.admin.roles.listRoles({ orgId: globex.orgId })).roles.find(({ builtIn }) => !builtIn)!;
  const token = (await globex.admin.tokens.listTokens({ orgId: globex.orgId })).tokens[0]!;
  const change = { orgId, roleId: role.roleId, requestId, permissions: ['jobs.read'] };
  for (const call of [
    () => members.getMember({ orgId, userId: globex.adminId }),
    () => members.updateMember({ orgId, userId: globex.adminId, requestId, roles: ['user'] }),
    () => members.removeMember({ orgId, userId: globex.adminId, requestId }),
    () => roles.updateRole(change),
    () => roles.deleteRole({ orgId, roleId: role.roleId, requestId }),
    () => tokens.revokeToken({ orgId, tokenId: token.tokenId }),
  ]) {
    expect((await failure(call())).code).toBe(Code.NotFound);
  }
});

/** Every table with `org_id`. */
const ORG_TABLES = [
  'organizations',
  'org_settings',
  'memberships',
  'membership_roles',
  'roles',
  'user_sessions',
  'tokens',
  'audit_chains',
  'audit_logs',
  'idempotency_keys',
];

test('row-level security alone, with every query filter removed, shows one organization', async () => {
  const { rows } = await mad.superuser.query(
    `SELECT relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
     WHERE relnamespace = 'identity'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition`,
  );
  expect(rows.map(({ relname }) => String(relname)).toSorted()).toEqual([...ORG_TABLES].sort());
  for (const table of ORG_TABLES) {
    const all = await mad.superuser.query(`SELECT DISTINCT org_id FROM identity.${table}`);
    expect(all.rowCount).toBeGreaterThan(1);
    const seen = await mad.database.inOrg(acme.orgId, (tx) =>
      tx.query<{ org_id: string | null }>(`SELECT DISTINCT org_id FROM identity.${table} WHERE org_id IS NOT NULL`),
    );
    expect(seen).toEqual([{ org_id: acme.orgId }]);
  }
  const see = (sql: string) => mad.database.inOrg(acme.orgId, (tx) => tx.query<{ id: string }>(sql));
  expect(await see('SELECT user_id AS id FROM identity.users')).toEqual([{ id: acme.adminId }]);
  const foreign = `SELECT role_id AS id FROM identity.role_permissions WHERE role_id IN (
    SELECT role_id FROM identity.roles WHERE org_id = '${globex.orgId}')`;
  expect(await see(foreign)).toEqual([]);
});

test('row-level security refuses to write into another organization, or into built-in rows', async () => {
  const write = (sql: string, params: unknown[] = []) =>
    mad.database.inOrg(acme.orgId, (tx) => tx.execute(sql, params));
  const refused = 'row-level security';
  await expect(
    write('INSERT INTO identity.memberships (user_id, org_id) VALUES ($1, $2)', [acme.adminId, globex.orgId]),
  ).rejects.toThrow(refused);
  await expect(write(`INSERT INTO identity.roles (org_id, name) VALUES (NULL, 'mine')`)).rejects.toThrow(refused);
  await expect(
    write(`INSERT INTO identity.role_permissions (role_id, permission)
           SELECT role_id, 'audit.read' FROM identity.roles WHERE org_id IS NULL AND name = 'user'`),
  ).rejects.toThrow(refused);
  expect(await write(`UPDATE identity.organizations SET name = name || '!' WHERE slug = 'globex'`)).toBe(0);
  expect(await write(`UPDATE identity.roles SET name = 'mine' WHERE org_id IS NULL`)).toBe(0);
  expect(await write(`DELETE FROM identity.role_permissions WHERE permission = 'audit.read'`)).toBe(0);
  await expect(write(`UPDATE identity.users SET role = 'super_admin'`)).rejects.toThrow('permission denied');
  await expect(write('SELECT private_key FROM identity.signing_keys')).rejects.toThrow('permission denied');
});

test('outside a transaction of an organization the login sees nothing', async () => {
  const client = new pg.Client({ connectionString: mad.db.url('mad_identity') });
  await client.connect();
  try {
    for (const table of [...ORG_TABLES, 'users']) {
      const filter = table === 'roles' ? 'WHERE org_id IS NOT NULL' : '';
      expect((await client.query(`SELECT 1 FROM identity.${table} ${filter}`)).rows).toEqual([]);
    }
  } finally {
    await client.end();
  }
});

test('the query filters alone, with row-level security removed, show one organization', async () => {
  const list = async (by: TestOrganization) => {
    const { orgId, admin } = by;
    const { roles } = await admin.roles.listRoles({ orgId, pageSize: 1000 });
    return {
      organization: (await admin.organizations.getOrganization({ orgId })).organization!.orgId,
      settings: (await admin.organizations.getOrganizationSettings({ orgId })).settings!.orgId,
      members: (await admin.members.listMembers({ orgId })).members.map((member) => member.orgId),
      roles: roles.map((role) => role.orgId).filter((id) => id !== ''),
      tokens: (await admin.tokens.listTokens({ orgId })).tokens.length,
      audit: [...new Set((await admin.audit.listAuditEvents({ orgId })).events.map((event) => event.orgId))],
      intact: (await admin.audit.verifyAuditChain({ orgId })).intact,
    };
  };
  const guarded = [await list(acme), await list(globex)];
  const alter = (change: string) =>
    [...ORG_TABLES, 'users', 'role_permissions'].map((table) => `ALTER TABLE identity.${table} ${change}`).join(';');
  await mad.superuser.query(alter('NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY'));
  try {
    const everything = await mad.database.inOrg(acme.orgId, (tx: Tx) =>
      tx.query('SELECT DISTINCT org_id FROM identity.tokens'),
    );
    expect(everything).toHaveLength(2);
    expect([await list(acme), await list(globex)]).toEqual(guarded);
    for (const [by, on] of [
      [acme, globex],
      [globex, acme],
    ] as const) {
      const { orgId, admin } = by;
      expect((await failure(admin.members.getMember({ orgId, userId: on.adminId }))).code).toBe(Code.NotFound);
    }
  } finally {
    await mad.superuser.query(alter('ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY'));
  }
});
