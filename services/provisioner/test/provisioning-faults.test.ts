import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { TenantState } from '@mad/proto/provisioner';
import { reasonOf } from '@mad/rpc';
import pg from 'pg';
import { waitFor } from './hold-step.ts';
import { noteMigrations } from './neighbours.ts';
import { failure, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';
import { registrationOf, startSecondServer, type SecondServer } from './second-server.ts';

const SCHEMA = 'hindered';

let mad: RunningProvisioner;
let server: SecondServer;

beforeAll(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: noteMigrations(SCHEMA),
    environment: { PROVISIONER_SWEEP_MS: '100', PROVISIONER_CLEANUP_GRACE_MS: '60000' },
  });
  server = await startSecondServer(mad, 'weak');
  await mad.servers().registerServer(registrationOf(server));
  await mad.servers().drainServer({ name: 'local' });
}, 120_000);

afterAll(async () => {
  await mad?.close();
  await server?.close();
});

const ensure = async (orgId: string) => (await mad.tenants().ensureTenant({ orgId, schema: SCHEMA })).tenant!;

/** A session of the organization's login. */
async function login(orgId: string): Promise<pg.Client> {
  const { host, port, user, password, database } = (await mad.routes().getRoute({ orgId, schema: SCHEMA })).route!;
  const session = new pg.Client({ host, port, user, password, database });
  session.on('error', () => undefined);
  await session.connect();
  return session;
}

async function isUsed(orgId: string): Promise<void> {
  const session = await login(orgId);
  await session.query(`INSERT INTO ${SCHEMA}.notes (body) VALUES ('made')`);
  await session.end();
}

describe('a template somebody is in', () => {
  beforeAll(async () => {
    expect(await ensure(uuidv7())).toMatchObject({ state: TenantState.READY });
  });

  async function enter(): Promise<pg.Client> {
    const { rows } = await server.admin.query<{ name: string }>(
      `SELECT datname AS name FROM pg_database WHERE datname LIKE 'mad\\_${SCHEMA}\\_template\\_%'`,
    );
    const { name } = rows[0]!;
    // It lets nobody in; a superuser finds a way, and the provisioner cannot throw such a one out.
    await server.admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
    const session = new pg.Client(clientOptions(server.adminUrlTo(name)));
    await session.connect();
    await server.admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    return session;
  }

  test('for longer than Postgres waits: the copy is tried again, and the organization is made', async () => {
    const session = await enter();
    const orgId = uuidv7();
    const asked = ensure(orgId);
    // The first try waits for five seconds and ends in an error; another one begins.
    const copying = `FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE%' AND state = 'active'`;
    await waitFor(server.admin, `SELECT ${copying}`);
    const { rows } = await server.admin.query<{ at: string }>(`SELECT query_start::text AS at ${copying}`);
    await waitFor(server.admin, `SELECT ${copying} AND query_start > $1`, [rows[0]!.at]);
    await session.end();
    expect(await asked).toMatchObject({ state: TenantState.READY, lastError: '' });
    await isUsed(orgId);
  }, 60_000);

  test('for longer than that is told by name; the organization is made when it is asked for again', async () => {
    const session = await enter();
    const orgId = uuidv7();
    expect(await ensure(orgId)).toMatchObject({
      state: TenantState.FAILED,
      step: 'create_database',
      lastError: expect.stringMatching(
        /^source database "mad_hindered_template_\w+" is being accessed by other users$/,
      ),
    });
    await session.end();
    expect(await ensure(orgId)).toMatchObject({ state: TenantState.READY, lastError: '' });
    await isUsed(orgId);
  }, 60_000);
});

test('a server that takes no changes is told as such; the organization is made when it does again', async () => {
  const set = async (value: string): Promise<void> => {
    await server.admin.query('SET default_transaction_read_only = off');
    await server.admin.query(`ALTER SYSTEM SET default_transaction_read_only = ${value}`);
    await server.admin.query('SELECT pg_reload_conf()');
    // Sessions hear of it one after the other: a new one is asked.
    for (let is = ''; is !== value;) {
      const session = new pg.Client(clientOptions(server.adminUrlTo('postgres')));
      await session.connect();
      const { rows } = await session.query<{ is: string }>(
        `SELECT current_setting('default_transaction_read_only') AS is`,
      );
      await session.end();
      is = rows[0]!.is;
    }
  };
  await set('on');
  const orgId = uuidv7();
  try {
    expect(await ensure(orgId)).toMatchObject({
      state: TenantState.FAILED,
      step: 'create_database',
      lastError: expect.stringMatching(
        /^the server takes no changes, as a standby or by its setting default_transaction_read_only: cannot execute \w+ DATABASE/,
      ),
    });
  } finally {
    await set('off');
  }
  expect(await ensure(orgId)).toMatchObject({ state: TenantState.READY, lastError: '' });
  await isUsed(orgId);
}, 60_000);

test('a suspension is not done while a session does not end, says so, and is done when it has', async () => {
  const orgId = uuidv7();
  const { databaseName } = await ensure(orgId);
  const session = await login(orgId);
  const { rows } = await session.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  const { pid } = rows[0]!;
  // It hears nothing, as one that hangs in the kernel.
  process.kill(pid, 'SIGSTOP');
  try {
    const refused = await failure(mad.tenants().suspendTenants({ orgId }));
    expect(reasonOf(refused)).toBe('TENANT_PROVISIONING');
    const { operations } = await mad.operations().listOperations({ orgId, kind: 'suspend' });
    expect(operations[0]).toMatchObject({ error: `sessions in ${databaseName} do not end` });
  } finally {
    process.kill(pid, 'SIGCONT');
  }
  expect((await mad.tenants().suspendTenants({ orgId })).tenants).toMatchObject([{ state: TenantState.SUSPENDED }]);
  await expect(session.query('SELECT 1')).rejects.toThrow();
}, 60_000);
