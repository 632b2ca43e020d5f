import { setTimeout as delay } from 'node:timers/promises';
import { Code } from '@connectrpc/connect';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { MoveMode, OperationState, TenantState, type Operation } from '@mad/proto/provisioner';
import { reasonOf, type RpcServer } from '@mad/rpc';
import pg from 'pg';
import { archivedMigrations, contentOf, fill } from './archived-schema.ts';
import { holdBefore, waitFor, type HeldStep } from './hold-step.ts';
import { serveSchemaOwner } from './neighbours.ts';
import { connectedTo, failure, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';
import { registrationOf, startSecondServer, type SecondServer } from './second-server.ts';

const SCHEMA = 'bereft';
/** What the server says to a login without the right to connect, or to write. */
const REFUSED = { code: '42501' };

let mad: RunningProvisioner;
let near: SecondServer;
let far: SecondServer;
let owner: RpcServer;
let held: HeldStep | undefined;
/** What the schema's owner does before it answers. */
let gate: (message: unknown) => Promise<void> = () => Promise.resolve();

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
  const { port } = mad.owner;
  await mad.owner.close();
  owner = await serveSchemaOwner(SCHEMA, archivedMigrations(SCHEMA), port, (message) => gate(message));
  await mad.servers().drainServer({ name: 'local' });
  [near, far] = await Promise.all([startSecondServer(mad, 'near'), startSecondServer(mad, 'far')]);
  await mad.servers().registerServer(registrationOf(near));
  await mad.servers().registerServer(registrationOf(far));
  await mad.servers().drainServer({ name: 'far' });
}, 120_000);

afterEach(() => held?.release());

afterAll(async () => {
  await owner?.close();
  await mad?.close();
  await near?.close();
  await far?.close();
});

interface Organization {
  orgId: string;
  database: string;
  /** What its database held when its backup was made. */
  content: unknown;
  backupId: string;
}

const contentOn = (server: SecondServer, database: string): Promise<unknown> =>
  connectedTo(server.adminUrlTo(database), (one) => contentOf(one, SCHEMA));

/** One on the near server, with a backup. */
async function organization(): Promise<Organization> {
  const orgId = uuidv7();
  // It may have been away when it was looked at last.
  await waitFor(
    mad.rows,
    `SELECT FROM provisioner.server_samples JOIN provisioner.database_servers USING (server_id)
     WHERE name = 'near' AND error = ''`,
  );
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  expect(tenant).toMatchObject({ state: TenantState.READY, lastError: '' });
  const database = tenant!.databaseName;
  await connectedTo(near.adminUrlTo(database), (one) => fill(one, SCHEMA, 200));
  const { backup, operation } = await mad.backups().createBackup({ orgId, schema: SCHEMA });
  expect(await mad.ended(operation)).toMatchObject({ state: OperationState.SUCCEEDED });
  return { orgId, database, content: await contentOn(near, database), backupId: backup!.backupId };
}

/** Its database and its logins are gone, as after the loss of a machine. */
async function lose({ database }: Organization): Promise<void> {
  await near.admin.query(`DROP DATABASE ${database} WITH (FORCE)`);
  await near.admin.query(`DROP ROLE ${database}_a, ${database}_b`);
}

async function restored({ backupId }: Organization): Promise<void> {
  const { operation } = await mad.backups().restoreBackup({ backupId, keepHours: 0 });
  expect(await mad.ended(operation)).toMatchObject({ state: OperationState.SUCCEEDED, error: '' });
}

async function standing(orgId: string): Promise<{ state: string; step: string | null; server: string }> {
  const { rows } = await mad.rows.query(
    `SELECT t.state, t.step, s.name AS server FROM provisioner.tenants t
     JOIN provisioner.database_servers s USING (server_id) WHERE org_id = $1`,
    [orgId],
  );
  return rows[0];
}

/** Uses the database as the organization's login does. */
async function asLogin<T>({ orgId }: Organization, fn: (login: pg.Client) => Promise<T>): Promise<T> {
  const { host, port, user, password, database } = (await mad.routes().getRoute({ orgId, schema: SCHEMA })).route!;
  const login = new pg.Client({ host, port, user, password, database });
  login.on('error', () => undefined);
  await login.connect();
  try {
    return await fn(login);
  } finally {
    await login.end();
  }
}

const count = (login: pg.Client): Promise<unknown> =>
  login.query(`SELECT count(*)::int AS animals FROM ${SCHEMA}.animals`).then(({ rows }) => rows);
const write = (login: pg.Client): Promise<unknown> => login.query(`INSERT INTO ${SCHEMA}.nothing VALUES ('again')`);

/** Of the organization nothing is on the server: no database, login, slot or subscription. */
async function cleared(server: SecondServer, { database }: Pick<Organization, 'database'>): Promise<void> {
  await waitFor(
    mad.rows,
    `SELECT WHERE NOT EXISTS (SELECT FROM provisioner.cleanup_records JOIN provisioner.database_servers USING (server_id)
       WHERE name = $1)`,
    [server.name],
  );
  const { rows } = await server.admin.query(
    `SELECT datname AS name FROM pg_database WHERE datname = $1 OR datname LIKE 'mad\\_${SCHEMA}\\_old\\_%' UNION ALL
     SELECT rolname FROM pg_roles WHERE rolname LIKE $1 || '\\__' OR rolname LIKE 'mad\\_${SCHEMA}\\_move\\_%' UNION ALL
     SELECT slot_name FROM pg_replication_slots UNION ALL SELECT subname FROM pg_subscription`,
    [database],
  );
  expect(rows).toEqual([]);
}

describe('a database that was lost', () => {
  test('of a suspended organization: resuming says so and ends, a restore brings it back suspended, resuming makes it usable', async () => {
    const one = await organization();
    const { orgId, database, content } = one;
    const { route } = await mad.routes().getRoute({ orgId, schema: SCHEMA });
    await mad.tenants().suspendTenants({ orgId });
    await lose(one);
    const refused = await failure(mad.tenants().resumeTenants({ orgId }));
    expect([refused.code, reasonOf(refused), refused.rawMessage]).toEqual([
      Code.FailedPrecondition,
      'DATABASE_UNAVAILABLE',
      `${database} is not on near any more: restore it from a backup`,
    ]);
    const { operations } = await mad.operations().listOperations({ orgId, kind: 'resume' });
    expect(operations).toMatchObject([{ state: OperationState.FAILED, error: refused.rawMessage }]);
    expect(await standing(orgId)).toMatchObject({ state: 'suspended', step: null });

    await restored(one);
    expect(await standing(orgId)).toMatchObject({ state: 'suspended', step: null });
    // The server enforces it: not even the right password lets in.
    const { user, password } = route!;
    const shut = new pg.Client({ host: near.host, port: near.port, user, password, database });
    await expect(shut.connect()).rejects.toMatchObject(REFUSED);
    expect((await mad.routes().getRoute({ orgId, schema: SCHEMA })).route).toMatchObject({
      state: TenantState.SUSPENDED,
      password: '',
    });

    await mad.tenants().resumeTenants({ orgId });
    expect(await contentOn(near, database)).toEqual(content);
    await asLogin(one, write);
    const drift = await mad.drift().listDrift({ orgId, schema: SCHEMA });
    expect(drift.tenants).toMatchObject([{ differences: [], error: '' }]);
  }, 120_000);

  test('of a read-only organization is restored to be read, and written when it is resumed', async () => {
    const one = await organization();
    const { orgId } = one;
    await mad.tenants().freezeTenants({ orgId });
    await lose(one);
    await restored(one);
    expect(await standing(orgId)).toMatchObject({ state: 'read_only', step: null });
    expect(await asLogin(one, count)).toEqual([{ animals: 200 }]);
    await expect(asLogin(one, write)).rejects.toMatchObject(REFUSED);
    await mad.tenants().resumeTenants({ orgId });
    await asLogin(one, write);
  }, 120_000);

  test('keeps nobody from suspending its organization, nor from erasing it', async () => {
    const one = await organization();
    const { orgId } = one;
    await lose(one);
    expect((await mad.tenants().suspendTenants({ orgId })).tenants).toMatchObject([{ state: TenantState.SUSPENDED }]);
    await failure(mad.tenants().resumeTenants({ orgId }));
    const { operation } = await mad
      .tenants()
      .eraseTenants({ orgId, erasureId: uuidv7(), slug: 'bereft', requestedBy: uuidv7() }, { timeoutMs: 60_000 });
    expect(await mad.ended(operation)).toMatchObject({ state: OperationState.SUCCEEDED });
  }, 120_000);

  test('an organization that lost its logins alone is suspended and resumed, with logins made anew', async () => {
    const one = await organization();
    const { orgId, database } = one;
    await near.admin.query(`REVOKE ALL ON DATABASE ${database} FROM ${database}_a, ${database}_b;
      DROP ROLE ${database}_a, ${database}_b`);
    await mad.tenants().suspendTenants({ orgId });
    await mad.tenants().resumeTenants({ orgId });
    await asLogin(one, write);
  }, 120_000);
});

describe('a suspended organization', () => {
  test('stays so while it is restored, whoever asks for its suspension meanwhile; resuming waits for the restore', async () => {
    const one = await organization();
    const { orgId, database, content } = one;
    await mad.tenants().suspendTenants({ orgId });
    await lose(one);
    const [reached, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    gate = async (message) => {
      if (!(message as { $typeName: string }).$typeName.endsWith('MigrateDatabaseRequest')) return;
      reached.resolve();
      await released.promise;
    };
    const { operation } = await mad.backups().restoreBackup({ backupId: one.backupId, keepHours: 0 });
    await reached.promise;
    expect((await mad.tenants().suspendTenants({ orgId })).tenants).toMatchObject([{ state: TenantState.SUSPENDED }]);
    const resumed = mad.tenants().resumeTenants({ orgId }, { timeoutMs: 60_000 });
    // It asks again and again.
    await delay(500);
    released.resolve();
    expect(await mad.ended(operation)).toMatchObject({ state: OperationState.SUCCEEDED, cancelRequested: false });
    expect((await resumed).tenants).toMatchObject([{ state: TenantState.READY }]);
    expect(await contentOn(near, database)).toEqual(content);
    await asLogin(one, write);
  }, 120_000);
});

describe('a server that dies during a move', () => {
  const move = async ({ orgId }: Organization, mode: MoveMode): Promise<Operation> => {
    await mad.servers().drainServer({ name: 'far', undo: true });
    const client = mad.tenantsAs(await mad.platform('platform.tenants.move'));
    const { operation } = await client.moveTenant({ orgId, schema: SCHEMA, server: 'far', mode, keepHours: 0 });
    await mad.servers().drainServer({ name: 'far' });
    return operation!;
  };

  test.each([
    ['offline', MoveMode.OFFLINE],
    ['online', MoveMode.ONLINE],
  ])(
    '%s, the old one after the cut-over: the move ends, everybody works on, and what is left there goes when it is back',
    async (_name, mode) => {
      const one = await organization();
      const { orgId, database, content } = one;
      held = await holdBefore(mad.rows, 'retire_source');
      const operation = await move(one, mode);
      await held.reached();
      await near.down();
      await held.release();
      const done = await mad.ended(operation);
      expect(done).toMatchObject({ state: OperationState.SUCCEEDED, error: '' });
      expect(done.result!['left_behind']).not.toBe('');
      expect(await standing(orgId)).toEqual({ state: 'ready', step: null, server: 'far' });
      expect(await contentOn(far, database)).toEqual(content);
      await mad.tenants().suspendTenants({ orgId });
      await mad.tenants().resumeTenants({ orgId });
      await asLogin(one, write);
      const { operation: backup } = await mad.backups().createBackup({ orgId, schema: SCHEMA });
      expect(await mad.ended(backup)).toMatchObject({ state: OperationState.SUCCEEDED });
      await near.up();
      await cleared(near, one);
      expect(await standing(orgId)).toEqual({ state: 'ready', step: null, server: 'far' });
      await asLogin(one, write);
    },
    120_000,
  );

  test('the new one: the organization works where it was, no slot keeps its log, and the copy goes when the server is back', async () => {
    const one = await organization();
    const { orgId } = one;
    held = await holdBefore(mad.rows, 'fence_source');
    const operation = await move(one, MoveMode.ONLINE);
    await held.reached();
    await far.down();
    await held.release();
    const failed = await mad.ended(operation);
    expect(failed).toMatchObject({ state: OperationState.FAILED });
    expect(failed.result!['left_behind']).not.toBe('');
    expect(await standing(orgId)).toEqual({ state: 'ready', step: null, server: 'near' });
    expect((await near.admin.query('SELECT FROM pg_replication_slots')).rowCount).toBe(0);
    await asLogin(one, write);
    await mad.tenants().suspendTenants({ orgId });
    await mad.tenants().resumeTenants({ orgId });
    await far.up();
    await cleared(far, one);
  }, 120_000);
});

test('a server that died is registered anew, empty, under its name: restores bring its organizations back', async () => {
  const [ready, suspended] = [await organization(), await organization()];
  await mad.tenants().suspendTenants({ orgId: suspended.orgId });
  const dead = near;
  near = await startSecondServer(mad, 'near');
  await dead.close();
  await mad.servers().registerServer(registrationOf(near));
  for (const one of [ready, suspended]) {
    await restored(one);
    expect(await contentOn(near, one.database)).toEqual(one.content);
  }
  expect(await standing(ready.orgId)).toEqual({ state: 'ready', step: null, server: 'near' });
  expect(await standing(suspended.orgId)).toEqual({ state: 'suspended', step: null, server: 'near' });
  await asLogin(ready, write);
  await mad.tenants().resumeTenants({ orgId: suspended.orgId });
  await asLogin(suspended, write);
}, 120_000);
