import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { bootstrapTenantServer } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { OperationState, TenantState } from '@mad/proto/provisioner';
import type { RpcServer } from '@mad/rpc';
import { platformToken, testCluster } from '@mad/testing';
import { archivedMigrations } from './archived-schema.ts';
import { serveSchemaOwner } from './neighbours.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const FIRST = 'forgotten_one';
const SECOND = 'forgotten_two';
let both: RunningProvisioner;
let second: RpcServer;

beforeAll(async () => {
  second = await serveSchemaOwner(SECOND, archivedMigrations(SECOND));
  both = await runProvisioner({ schema: FIRST, migrations: archivedMigrations(FIRST), idle: true });
  const password = (role: string): string => new URL(testCluster().url(role, 'postgres')).password;
  const [provisionerPassword, migratorPassword] = [password('mad_provisioner_admin'), password('mad_migrator')];
  await bootstrapTenantServer(testCluster().adminUrl, { provisionerPassword, migratorPassword, schema: SECOND });
  both.environment['PROVISIONER_TENANT_SCHEMAS'] += `,${SECOND}=127.0.0.1:${second.port}`;
  await both.start();
  await both
    .servers()
    .registerServer({ name: 'far', ...testCluster().place, region: 'far', provisionerPassword, migratorPassword });
});

afterAll(async () => {
  await second?.close();
  const names = await both.admin.query<{ datname: string }>('SELECT datname FROM pg_database WHERE datname LIKE $1', [
    `mad\\_${SECOND}\\_%`,
  ]);
  for (const { datname } of names.rows) await both.admin.query(`DROP DATABASE ${datname} WITH (FORCE)`);
  await both.close();
});

test('an organization with databases of two schemas on two servers is erased by one operation, on both', async () => {
  const orgId = uuidv7();
  for (const [schema, region] of [
    [FIRST, 'local'],
    [SECOND, 'far'],
  ] as const) {
    const { tenant: made } = await both.tenants().ensureTenant({ orgId, schema, region });
    expect(made).toMatchObject({ state: TenantState.READY, lastError: '' });
  }
  const { operation } = await both
    .tenants()
    .eraseTenants({ orgId, erasureId: uuidv7(), slug: 'acme', requestedBy: uuidv7() }, { timeoutMs: 60_000 });
  expect(operation).toMatchObject({ state: OperationState.SUCCEEDED, error: '', schema: FIRST });
  const bare = orgId.replaceAll('-', '');
  const { erasure, problems } = await both.erasures().verifyErasure({ erasureId: orgId });
  expect(problems).toEqual([]);
  expect(erasure!.record).toMatchObject({
    databases: [`far/mad_${SECOND}_${bare}`, `local/mad_${FIRST}_${bare}`],
    roles: [
      `far/mad_${SECOND}_${bare}_a`,
      `far/mad_${SECOND}_${bare}_b`,
      `local/mad_${FIRST}_${bare}_a`,
      `local/mad_${FIRST}_${bare}_b`,
    ],
  });
  const left = await both.admin.query(
    `SELECT datname FROM pg_database WHERE datname LIKE $1 UNION ALL SELECT rolname FROM pg_roles WHERE rolname LIKE $1`,
    [`%${bare}%`],
  );
  expect(left.rows).toEqual([]);
  const { tenants } = await both
    .tenantsAs(await platformToken({ permissions: ['platform.tenants.read'] }))
    .listTenants({ orgId });
  const standing = tenants.toSorted((a, b) => (a.schema < b.schema ? -1 : 1));
  expect(standing.map(({ schema, state, step }) => [schema, state, step])).toEqual([
    [FIRST, TenantState.ERASED, ''],
    [SECOND, TenantState.ERASED, ''],
  ]);
  for (const schema of [FIRST, SECOND]) {
    const { rows } = await both.rows.query(
      'SELECT state FROM provisioner.tenant_changes WHERE org_id = $1 AND schema = $2 ORDER BY seq',
      [orgId, schema],
    );
    expect(rows.map(({ state }) => state)).toEqual(['ready', 'erasing', 'erased']);
  }
}, 120_000);
