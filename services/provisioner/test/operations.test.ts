import { setTimeout as delay } from 'node:timers/promises';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions, defineMigration } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { TenantState } from '@mad/proto/provisioner';
import type { RpcServer } from '@mad/rpc';
import { platformToken, testCluster } from '@mad/testing';
import pg from 'pg';
import { noteMigrations, serveSchemaOwner } from './neighbours.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'ops';
const [CREATE, STARS] = noteMigrations(SCHEMA) as [
  ReturnType<typeof defineMigration>,
  ReturnType<typeof defineMigration>,
];

let mad: RunningProvisioner;
let owner: RpcServer;
let port: number;

beforeAll(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: [CREATE],
    environment: { PROVISIONER_CLEANUP_GRACE_MS: '300', PROVISIONER_SWEEP_MS: '100' },
  });
  owner = mad.owner;
  port = owner.port;
});

afterAll(async () => {
  await owner?.close();
  await mad?.close();
});

/** The owner of the schema is released anew, with these migrations. */
async function release(migrations: ReturnType<typeof noteMigrations>): Promise<void> {
  await owner.close();
  owner = await serveSchemaOwner(SCHEMA, migrations, port);
  // Longer than provisioner remembers the list of migrations.
  await delay(1_100);
}

async function ensure(orgId: string) {
  return (await mad.tenants().ensureTenant({ orgId, schema: SCHEMA })).tenant!;
}

async function migrate(orgId: string) {
  const token = await platformToken({ permissions: ['platform.tenants.migrate'] });
  return mad.tenantsAs(token).migrateTenant({ orgId, schema: SCHEMA });
}

async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  for (let wait = 0; wait < 500; wait += 1) {
    if (await condition()) return;
    await delay(20);
  }
  throw new Error(`waited in vain until ${what}`);
}

describe('a failed step', () => {
  test('is told with its reason, goes on where it stopped, and what nobody goes on with is removed', async () => {
    // The schema's owner is away, so no template can be made: roles are there already, the database is not.
    await owner.close();
    const orgId = uuidv7();
    const failed = await ensure(orgId);
    expect(failed).toMatchObject({ state: TenantState.FAILED, step: 'create_database' });
    expect(failed.lastError).not.toBe('');
    const { route } = await mad.routes().getRoute({ orgId, schema: SCHEMA });
    expect(route).toMatchObject({ state: TenantState.FAILED, password: '' });

    const recorded = async () => (await mad.rows.query('SELECT FROM provisioner.cleanup_records')).rowCount;
    await until(async () => (await recorded()) === 0, 'what was left is removed');
    expect((await mad.objects()).roles).toEqual([]);
    const { rows } = await mad.rows.query('SELECT step, state FROM provisioner.tenants WHERE org_id = $1', [orgId]);
    expect(rows).toEqual([{ step: 'create_database', state: 'failed' }]);

    owner = await serveSchemaOwner(SCHEMA, [CREATE], port);
    expect(await ensure(orgId)).toMatchObject({ state: TenantState.READY, step: '', lastError: '' });
    await delay(500);
    expect((await mad.objects()).roles).toHaveLength(2);
    expect((await mad.objects()).databases).toHaveLength(1);
  });
});

describe('a lease', () => {
  test('that another run took ends this one without a trace', async () => {
    const orgId = uuidv7();
    const asked = ensure(orgId);
    await until(
      async () => (await mad.rows.query(`SELECT FROM provisioner.tenants WHERE org_id = $1`, [orgId])).rowCount === 1,
      'the tenant is there',
    );
    // Somebody else holds the tenant from now on, and then dies without having done anything.
    const thief = uuidv7();
    const { rowCount } = await mad.rows.query(
      `UPDATE provisioner.tenants SET step_owner = $2, step_lease_until = now() + interval '700 ms'
       WHERE org_id = $1 AND state <> 'ready'`,
      [orgId, thief],
    );
    expect(rowCount).toBe(1);
    await delay(350);
    const { rows } = await mad.rows.query('SELECT state, step_owner FROM provisioner.tenants WHERE org_id = $1', [
      orgId,
    ]);
    expect(rows).toEqual([{ state: expect.stringMatching(/requested|creating/), step_owner: thief }]);
    expect((await asked).state).toBe(TenantState.READY);
    const log = await mad.rows.query('SELECT FROM provisioner.tenant_changes WHERE org_id = $1', [orgId]);
    expect(log.rowCount).toBe(1);
  });

  test('on a tenant whose row somebody holds keeps nobody else waiting', async () => {
    const [orgId, neighbour] = [uuidv7(), uuidv7()];
    expect((await ensure(orgId)).state).toBe(TenantState.READY);
    expect((await ensure(neighbour)).state).toBe(TenantState.READY);
    // A run that waits for its turn at the tenant, for as long as the test wants.
    const lock = [`mad.tenant.${SCHEMA}.${orgId}`];
    await mad.admin.query('SELECT pg_advisory_lock(hashtextextended($1, 0))', lock);
    try {
      const asked = mad.tenants().suspendTenants({ orgId }, { timeoutMs: 60_000 });
      await until(
        async () =>
          (await mad.rows.query(`SELECT FROM provisioner.tenants WHERE org_id = $1 AND step IS NOT NULL`, [orgId]))
            .rowCount === 1,
        'the suspension has begun',
      );
      await mad.rows.query('BEGIN');
      await mad.rows.query('SELECT FROM provisioner.tenants WHERE org_id = $1 FOR UPDATE', [orgId]);
      // Its lease was to be renewed several times, and is over; the sweeper has looked more often than there are connections.
      await delay(2_500);
      const { route } = await mad.routes().getRoute({ orgId: neighbour, schema: SCHEMA }, { timeoutMs: 10_000 });
      expect(route).toMatchObject({ state: TenantState.READY });
      await mad.rows.query('COMMIT');
      await mad.admin.query('SELECT pg_advisory_unlock_all()');
      const { tenants } = await asked;
      expect(tenants).toMatchObject([{ state: TenantState.SUSPENDED, step: '' }]);
    } finally {
      await mad.rows.query('ROLLBACK');
      await mad.admin.query('SELECT pg_advisory_unlock_all()');
    }
  }, 120_000);
});

describe('MigrateTenant', () => {
  test('brings a database to the newest version, once, and shuts the migrator out again', async () => {
    const orgId = uuidv7();
    expect((await ensure(orgId)).schemaVersion).toBe(CREATE.migrationName);
    await release([CREATE, STARS]);
    const first = await migrate(orgId);
    expect(first.applied).toEqual([STARS.migrationName]);
    expect(first.tenant).toMatchObject({ state: TenantState.READY, schemaVersion: STARS.migrationName, step: '' });
    expect((await migrate(orgId)).applied).toEqual([]);
    const { route } = await mad.routes().getRoute({ orgId, schema: SCHEMA });
    expect(route!.schemaVersion).toBe(STARS.migrationName);
    const { host, port: at, user, password, database } = route!;
    const client = new pg.Client({ host, port: at, user, password, database });
    await client.connect();
    expect((await client.query(`SELECT stars FROM ${SCHEMA}.notes`)).rows).toEqual([]);
    await client.end();
    const migrator = testCluster().url('mad_migrator', database);
    await expect(new pg.Client(clientOptions(migrator)).connect()).rejects.toMatchObject({ code: '42501' });
    // A new organization gets the new version from a template of its own.
    expect((await ensure(uuidv7())).schemaVersion).toBe(STARS.migrationName);
  });

  test('that fails says why and leaves the tenant as it was', async () => {
    const orgId = uuidv7();
    await ensure(orgId);
    const broken = defineMigration('2026_01_07_1000_break.ts', { up: 'SELECT no_such_column', down: 'SELECT 1' });
    try {
      await release([CREATE, STARS, broken]);
      await expect(migrate(orgId)).rejects.toMatchObject({ code: Code.FailedPrecondition });
      expect(await ensure(orgId)).toMatchObject({
        state: TenantState.READY,
        schemaVersion: STARS.migrationName,
        step: '',
      });
    } finally {
      await release([CREATE, STARS]);
    }
    expect((await migrate(orgId)).applied).toEqual([]);
  });

  test('of nothing is NOT_FOUND', async () => {
    await expect(migrate(uuidv7())).rejects.toMatchObject({ code: Code.NotFound });
  });
});
