import { Code } from '@connectrpc/connect';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { MoveMode, OperationState, TenantState, type Operation } from '@mad/proto/provisioner';
import type { RpcServer } from '@mad/rpc';
import pg from 'pg';
import { archivedMigrations, contentOf, fill } from './archived-schema.ts';
import { holdBefore, waitFor, type HeldStep } from './hold-step.ts';
import { serveSchemaOwner } from './neighbours.ts';
import { failure, inside, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';
import { registrationOf, startSecondServer, type SecondServer } from './second-server.ts';

const SCHEMA = 'belated';

let mad: RunningProvisioner;
let second: SecondServer;
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
    },
  });
  const { port } = mad.owner;
  await mad.owner.close();
  owner = await serveSchemaOwner(SCHEMA, archivedMigrations(SCHEMA), port, (message) => gate(message));
  second = await startSecondServer(mad, 'second');
  await mad.servers().registerServer(registrationOf(second));
  // Organizations begin on the run's own server.
  await mad.servers().drainServer({ name: 'second' });
}, 120_000);

afterAll(async () => {
  await owner?.close();
  await mad?.close();
  await second?.close();
});

afterEach(() => held?.release());

async function organization(): Promise<{ orgId: string; database: string }> {
  const orgId = uuidv7();
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  expect(tenant).toMatchObject({ state: TenantState.READY, lastError: '' });
  await inside(tenant!.databaseName, (client) => fill(client, SCHEMA, 200));
  return { orgId, database: tenant!.databaseName };
}

const contentIn = (database: string): Promise<unknown> => inside(database, (client) => contentOf(client, SCHEMA));

async function move(orgId: string, mode: MoveMode): Promise<Operation> {
  await mad.servers().drainServer({ name: 'second', undo: true });
  const client = mad.tenantsAs(await mad.platform('platform.tenants.move'));
  const { operation } = await client.moveTenant({ orgId, schema: SCHEMA, server: 'second', mode });
  await mad.servers().drainServer({ name: 'second' });
  return operation!;
}

/** The tenant is where it was, as it was, and is written. */
async function untouched(orgId: string, database: string, before: unknown): Promise<void> {
  expect(await contentIn(database)).toEqual(before);
  const { rows } = await mad.rows.query(
    `SELECT s.name, t.state, t.step FROM provisioner.tenants t JOIN provisioner.database_servers s USING (server_id)
     WHERE org_id = $1`,
    [orgId],
  );
  expect(rows).toEqual([{ name: 'local', state: 'ready', step: null }]);
  const { host, port, user, password } = (await mad.routes().getRoute({ orgId, schema: SCHEMA })).route!;
  const login = new pg.Client({ host, port, user, password, database });
  await login.connect();
  await login.query(`INSERT INTO ${SCHEMA}.nothing VALUES ('goes on')`);
  await login.end();
}

/** Holds the owner's call that brings a database to the newest version: the `nth` that comes. */
function holdMigration(nth: number): { reached: Promise<void>; release: () => void } {
  const reached = Promise.withResolvers<void>();
  const released = Promise.withResolvers<void>();
  let seen = 0;
  gate = async (message) => {
    const { $typeName: type, version } = message as { $typeName: string; version?: string };
    if (!type.endsWith('MigrateDatabaseRequest') || version !== '') return;
    seen += 1;
    if (seen !== nth) return;
    reached.resolve();
    await released.promise;
  };
  return { reached: reached.promise, release: () => released.resolve() };
}

/** On the second server no login is made meanwhile: a move stands still at the end of `finish_target`. */
async function holdLogins(): Promise<{ reached: () => Promise<void>; release: () => Promise<unknown> }> {
  await second.admin.query('BEGIN; LOCK TABLE pg_authid IN SHARE MODE');
  const waiting = `SELECT FROM pg_locks WHERE relation = 'pg_authid'::regclass AND NOT granted`;
  return { reached: () => waitFor(second.admin, waiting), release: () => second.admin.query('COMMIT') };
}

async function cancelled(operation: Operation | undefined): Promise<void> {
  const { operationId } = operation!;
  const { operation: told } = await mad.operations().cancelOperation({ operationId });
  expect(told).toMatchObject({ state: OperationState.RUNNING, cancelRequested: true });
}

describe('an end that is asked for during the last step that can be given up', () => {
  test('of a restore: nothing is replaced; a step later it is refused', async () => {
    const { orgId, database } = await organization();
    const begun = await mad.backups().createBackup({ orgId, schema: SCHEMA });
    expect(await mad.ended(begun.operation)).toMatchObject({ state: OperationState.SUCCEEDED });
    const { backupId } = begun.backup!;
    const archived = await contentIn(database);
    await inside(database, (client) => client.query(`INSERT INTO ${SCHEMA}.zoos (name) VALUES ('since')`));
    const since = await contentIn(database);

    const first = holdMigration(1);
    const { operation } = await mad.backups().restoreBackup({ backupId, keepHours: 0 });
    await first.reached;
    await cancelled(operation);
    first.release();
    expect(await mad.ended(operation)).toMatchObject({ state: OperationState.CANCELLED, step: 'migrate_copy' });
    await untouched(orgId, database, since);

    const later = holdMigration(2);
    const { operation: second_ } = await mad.backups().restoreBackup({ backupId, keepHours: 0 });
    await later.reached;
    const refused = await failure(mad.operations().cancelOperation({ operationId: second_!.operationId }));
    expect([refused.code, refused.rawMessage]).toEqual([
      Code.FailedPrecondition,
      'operation_id: restore must be carried through',
    ]);
    later.release();
    expect(await mad.ended(second_)).toMatchObject({ state: OperationState.SUCCEEDED, cancelRequested: false });
    await untouched(orgId, database, archived);
  }, 120_000);

  test('of a move: the tenant stays where it is', async () => {
    const { orgId, database } = await organization();
    const before = await contentIn(database);
    const logins = await holdLogins();
    const operation = await move(orgId, MoveMode.OFFLINE);
    await logins.reached();
    await cancelled(operation);
    await logins.release();
    expect(await mad.ended(operation)).toMatchObject({ state: OperationState.CANCELLED, step: 'finish_target' });
    await untouched(orgId, database, before);
  }, 120_000);

  test('between two steps comes first, or is too late: nobody is told that what went on is given up', async () => {
    const { orgId, database } = await organization();
    const before = await contentIn(database);
    held = await holdBefore(mad.rows, 'cut_over');
    const operation = await move(orgId, MoveMode.OFFLINE);
    await held.reached();
    await cancelled(operation);
    await held.release();
    expect(await mad.ended(operation)).toMatchObject({ state: OperationState.CANCELLED, step: 'finish_target' });
    await untouched(orgId, database, before);
  }, 120_000);
});

test('an online move is given up while its tables are compared, behind the fence', async () => {
  const { orgId, database } = await organization();
  const before = await contentIn(database);
  const logins = await holdLogins();
  const operation = await move(orgId, MoveMode.ONLINE);
  await logins.reached();
  const reader = new pg.Client(clientOptions(second.adminUrlTo(database)));
  await reader.connect();
  try {
    await reader.query(`BEGIN; LOCK TABLE ${SCHEMA}.counters IN ACCESS EXCLUSIVE MODE`);
    await logins.release();
    await waitFor(reader, `SELECT FROM pg_locks WHERE relation = '${SCHEMA}.counters'::regclass AND NOT granted`);
    await cancelled(operation);
    // The table is held still.
    expect(await mad.ended(operation)).toMatchObject({ state: OperationState.CANCELLED, step: 'drain', error: '' });
  } finally {
    await reader.end();
  }
  await untouched(orgId, database, before);
  expect((await mad.admin.query('SELECT FROM pg_replication_slots WHERE database = $1', [database])).rowCount).toBe(0);
}, 120_000);
