import { setTimeout as delay } from 'node:timers/promises';
import { Code, ConnectError } from '@connectrpc/connect';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { OperationState, TenantState } from '@mad/proto/provisioner';
import { errorMetadataOf, reasonOf } from '@mad/rpc';
import { openTenants, type Tenants } from '@mad/tenancy';
import { testCluster } from '@mad/testing';
import { archivedMigrations, contentOf, fill } from './archived-schema.ts';
import { silent } from './neighbours.ts';
import { connectedTo, failure, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';
import { registrationOf, startSecondServer, type SecondServer } from './second-server.ts';

const SCHEMA = 'moved';

let mad: RunningProvisioner;
let second: SecondServer;
let tenants: Tenants;

beforeAll(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: archivedMigrations(SCHEMA),
    environment: {
      PROVISIONER_SWEEP_MS: '100',
      PROVISIONER_CLEANUP_GRACE_MS: '0',
      PROVISIONER_BACKUP_EVERY_HOURS: '0',
      PROVISIONER_SERVER_SAMPLE_MS: '500',
    },
  });
  second = await startSecondServer(mad, 'second');
  await mad.servers().registerServer({ ...registrationOf(second), maxTenants: 50 });
  tenants = await openTenants({
    schema: SCHEMA,
    entities: [],
    routes: mad.transport('results'),
    node: 'move-test',
    budget: 10,
    logger: silent,
  });
}, 120_000);

afterAll(async () => {
  await tenants?.close();
  await mad?.close();
  await second?.close();
});

const client = async () => mad.tenantsAs(await mad.platform('platform.tenants.move'));

const contentAt = (url: string): Promise<unknown> => connectedTo(url, (one) => contentOf(one, SCHEMA));

/** Organizations begin on the run's own server: the second takes none by itself. */
async function organization(animals: number): Promise<{ orgId: string; database: string }> {
  const orgId = uuidv7();
  const { rows } = await mad.rows.query<{ name: string }>(
    `UPDATE provisioner.database_servers SET draining = true WHERE name <> 'local' AND NOT draining RETURNING name`,
  );
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  for (const { name } of rows) await mad.servers().drainServer({ name, undo: true });
  expect(tenant).toMatchObject({ state: TenantState.READY, lastError: '' });
  const database = tenant!.databaseName;
  await connectedTo(testCluster().adminUrlTo(database), (one) => fill(one, SCHEMA, animals));
  return { orgId, database };
}

async function swept(): Promise<void> {
  for (let wait = 0; wait < 1_000; wait += 1) {
    const { rows } = await mad.rows.query(
      'SELECT FROM provisioner.cleanup_records WHERE keep_until IS NULL OR keep_until <= now()',
    );
    if (rows.length === 0) return;
    await delay(50);
  }
  throw new Error('leavings stayed');
}

async function there(database: string): Promise<{ first: boolean; second: boolean }> {
  const here = await mad.objects();
  const second_ = await second.objects();
  return { first: here.databases.includes(database), second: second_.databases.includes(database) };
}

describe('moving a tenant', () => {
  test('takes every row, sequence, partition and index along; the source is kept apart, and who asks is told why', async () => {
    const { orgId, database } = await organization(3_000);
    const { operation: indexing } = await mad
      .indexes()
      .createTenantIndex({ orgId, schema: SCHEMA, name: 'own_born', table: 'animals', columns: ['born desc'] });
    expect(await mad.ended(indexing)).toMatchObject({ state: OperationState.SUCCEEDED });
    const before = await contentAt(testCluster().adminUrlTo(database));
    const count = (org: string) => tenants.read(org, (tx) => tx.query('SELECT count(*)::int AS n FROM moved.animals'));
    expect(await count(orgId)).toEqual([{ n: 3_000 }]);

    const { operation } = await (await client()).moveTenant({ orgId, schema: SCHEMA, server: 'second' });
    const done = await mad.ended(operation);
    expect(done).toMatchObject({ state: OperationState.SUCCEEDED, error: '', kind: 'move' });
    expect(done.result).toMatchObject({ from: 'local', to: 'second', kept_database: expect.stringMatching(/_old_/) });
    expect(Number(done.result!['pause_ms'])).toBeGreaterThan(0);
    expect(Number(done.result!['rows'])).toBe(3_000 + 500 + 9 + 1);

    expect(await contentAt(second.adminUrlTo(database))).toEqual(before);
    // Readers and writers find it without being told, and write it where it is now.
    expect(await count(orgId)).toEqual([{ n: 3_000 }]);
    await tenants.transact(orgId, (tx) => tx.execute(`INSERT INTO moved.nothing VALUES ('after the move')`));
    const written = await connectedTo(second.adminUrlTo(database), (one) =>
      one.query('SELECT note FROM moved.nothing'),
    );
    expect(written.rows).toEqual([{ note: 'after the move' }]);

    const kept = done.result!['kept_database'] as string;
    await swept();
    expect(await there(database)).toEqual({ first: false, second: true });
    expect(await mad.objects()).toMatchObject({ databases: expect.arrayContaining([kept]) });
    const { rows } = await mad.admin.query(
      `SELECT datallowconn, (SELECT count(*)::int FROM pg_roles WHERE rolname LIKE $2 || '\\__') AS logins
       FROM pg_database WHERE datname = $1`,
      [kept, database],
    );
    expect(rows).toEqual([{ datallowconn: false, logins: 0 }]);
    const why = await mad.servers().whyHere({ orgId, schema: SCHEMA });
    expect(why.server).toBe('second');
    expect(why.verdicts.map(({ server }) => server)).toContain('second');
    const drift = await mad.drift().listDrift({ orgId, schema: SCHEMA });
    expect(drift.tenants).toMatchObject([{ differences: [], error: '' }]);

    // Or dropped before its time.
    const dropped = await mad.backups().dropReplacedDatabase({ operationId: done.operationId });
    expect(dropped.databaseName).toBe(kept);
    await swept();
    expect((await mad.objects()).databases).not.toContain(kept);

    // And back, kept for no time at all.
    const { operation: back } = await (
      await client()
    ).moveTenant({ orgId, schema: SCHEMA, server: 'local', keepHours: 0 });
    expect(await mad.ended(back)).toMatchObject({ state: OperationState.SUCCEEDED, error: '' });
    await swept();
    expect(await there(database)).toEqual({ first: true, second: false });
    expect((await second.objects()).roles).toEqual([]);
    expect(await count(orgId)).toEqual([{ n: 3_000 }]);
  }, 240_000);

  test('given up while rows are copied, it leaves the tenant as it was, to be written again', async () => {
    const { orgId, database } = await organization(100);
    await connectedTo(testCluster().adminUrlTo(database), (one) =>
      one.query(`INSERT INTO moved.nothing SELECT repeat(md5(n::text), 10) FROM generate_series(1, 500000) n`),
    );
    const before = await contentAt(testCluster().adminUrlTo(database));
    const { operation } = await (await client()).moveTenant({ orgId, schema: SCHEMA, server: 'second' });
    const { operationId } = operation!;
    for (let wait = 0; wait < 2_000; wait += 1) {
      const { operation: now } = await mad.operations().getOperation({ operationId });
      if (now!.step === 'copy_rows') break;
      await delay(5);
    }
    // Read, and not written.
    expect(await tenants.read(orgId, (tx) => tx.query('SELECT count(*)::int AS n FROM moved.zoos'))).toEqual([
      { n: 9 },
    ]);
    const write = () => tenants.transact(orgId, (tx) => tx.execute(`INSERT INTO moved.nothing VALUES ('x')`));
    const refused = await failure(write());
    expect([reasonOf(refused), errorMetadataOf(refused)['state']]).toEqual(['DATABASE_UNAVAILABLE', 'MOVING']);
    await mad.operations().cancelOperation({ operationId });
    expect(await mad.ended(operation)).toMatchObject({ state: OperationState.CANCELLED });
    expect(await contentAt(testCluster().adminUrlTo(database))).toEqual(before);
    // Routers hear of it a moment later.
    let told: unknown;
    for (let wait = 0; wait < 500; wait += 1) {
      told = await write().catch((error: unknown) => error);
      if (!(told instanceof ConnectError) || reasonOf(told) !== 'DATABASE_UNAVAILABLE') break;
      await delay(20);
    }
    expect(told).toBe(1);
    await swept();
    expect(await there(database)).toEqual({ first: true, second: false });
    expect((await second.objects()).roles.filter((role) => role.startsWith(database))).toEqual([]);
    const drift = await mad.drift().listDrift({ orgId, schema: SCHEMA });
    expect(drift.tenants).toMatchObject([{ differences: [], error: '' }]);
  }, 240_000);
});

describe('a move is refused', () => {
  let orgId: string;

  beforeEach(async () => {
    ({ orgId } = await organization(10));
  });

  test('to a server that takes no tenant, by name and reason', async () => {
    const move = async (server: string) => failure((await client()).moveTenant({ orgId, schema: SCHEMA, server }));
    const other = { ...registrationOf(second), connectionBudget: 5 };
    await mad.servers().registerServer({ ...other, name: 'abroad', region: 'abroad' });
    await mad.servers().registerServer({ ...other, name: 'tiny', maxTenants: 1 });
    const stranger = uuidv7();
    await mad.rows.query(
      `INSERT INTO provisioner.tenants (org_id, schema, server_id, database_name, region, operation_id)
       SELECT $1, $2, s.server_id, 'mad_moved_elsewhere', 'local', t.operation_id FROM provisioner.database_servers s,
         (SELECT operation_id FROM provisioner.tenants LIMIT 1) t WHERE s.name = 'tiny'`,
      [stranger, SCHEMA],
    );
    await mad.servers().registerServer({ ...other, name: 'drained' });
    await mad.servers().drainServer({ name: 'drained' });
    await mad.servers().registerServer({ ...other, name: 'silent', port: 1 });
    for (const [server, why, message] of [
      ['abroad', 'other_region', /its region would have to be changed first/],
      ['tiny', 'full', /tiny is full/],
      ['drained', 'draining', /drained is drained/],
      ['silent', 'unreachable', /silent does not answer/],
    ] as const) {
      const error = await move(server);
      expect([error.code, reasonOf(error)]).toEqual([Code.FailedPrecondition, 'NO_SERVER_AVAILABLE']);
      expect(errorMetadataOf(error)).toMatchObject({ servers: `${server}=${why}` });
      expect(error.rawMessage).toMatch(message);
    }
    await mad.rows.query('DELETE FROM provisioner.tenants WHERE org_id = $1', [stranger]);
    expect((await move('nowhere')).code).toBe(Code.NotFound);
    expect(reasonOf(await move('local'))).toBe('STATE_CONFLICT');
  }, 60_000);

  test('to its own server under another name, and of a tenant that is not ready', async () => {
    const password = (role: string): string => new URL(testCluster().url(role, 'postgres')).password;
    await mad.servers().registerServer({
      name: 'alias',
      ...testCluster().place,
      region: 'local',
      connectionBudget: 5,
      provisionerPassword: password('mad_provisioner_admin'),
      migratorPassword: password('mad_migrator'),
    });
    const same = await failure((await client()).moveTenant({ orgId, schema: SCHEMA, server: 'alias' }));
    expect([reasonOf(same), same.rawMessage]).toEqual([
      'STATE_CONFLICT',
      'server: local and alias are one server under two names',
    ]);
    await mad.tenants().suspendTenants({ orgId });
    const suspended = await failure((await client()).moveTenant({ orgId, schema: SCHEMA, server: 'second' }));
    expect([reasonOf(suspended), suspended.rawMessage]).toEqual([
      'STATE_CONFLICT',
      'the tenant is suspended: only a ready one is moved',
    ]);
  }, 60_000);
});
