import { setTimeout as delay } from 'node:timers/promises';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { clientOptions, schemaFingerprint } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { TenantState, type Route } from '@mad/proto/provisioner';
import { reasonOf } from '@mad/rpc';
import { openTenants, type Tenants } from '@mad/tenancy';
import { platformToken, testCluster } from '@mad/testing';
import pg from 'pg';
import { silent } from './neighbours.ts';
import { failure, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'frozen';
/** What a session of a login says that tries to write. */
const REFUSED = { code: '42501' };

let mad: RunningProvisioner;
let tenants: Tenants;

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA, environment: { PROVISIONER_SWEEP_MS: '100' } });
  const routes = mad.transport('results');
  tenants = await openTenants({ schema: SCHEMA, entities: [], routes, node: 'node', logger: silent });
});

afterAll(async () => {
  await tenants?.close();
  await mad?.close();
});

async function ensure(): Promise<string> {
  const orgId = uuidv7();
  await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  await write(orgId);
  return orgId;
}

const write = (orgId: string): Promise<number> =>
  tenants.transact(orgId, (tx) => tx.execute(`INSERT INTO notes (body) VALUES ('x')`));
const count = async (orgId: string): Promise<number> =>
  (await tenants.read(orgId, (tx) => tx.query<{ n: number }>('SELECT count(*)::int AS n FROM notes')))[0]!.n;

async function route(orgId: string): Promise<Route> {
  return (await mad.routes().getRoute({ orgId, schema: SCHEMA })).route!;
}

/** A session of the login in use, past the router: nothing of ours holds it back. */
async function session({ user, password, database }: Route): Promise<pg.Client> {
  const client = new pg.Client({ ...clientOptions(testCluster().adminUrl), user, password, database });
  client.on('error', () => undefined);
  await client.connect();
  await client.query(`SET search_path = ${SCHEMA}`);
  return client;
}

async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  for (let wait = 0; wait < 1_000; wait += 1) {
    if (await condition()) return;
    await delay(20);
  }
  throw new Error(`waited in vain until ${what}`);
}

const stateOf = async (orgId: string): Promise<TenantState> =>
  (await mad.tenants().ensureTenant({ orgId, schema: SCHEMA })).tenant!.state;

/** Everything the tenant's rights are made of: of its objects, of what is yet to be made in it, of its two logins. */
async function rightsOf({ database, user }: Route): Promise<unknown> {
  const url = Object.assign(new URL(testCluster().adminUrl), { pathname: `/${database}` }).href;
  const inside = new pg.Client(clientOptions(url));
  await inside.connect();
  const defaults = await inside.query(
    `SELECT defaclobjtype, array(SELECT x::text FROM unnest(defaclacl) x ORDER BY 1) AS acl FROM pg_default_acl ORDER BY 1`,
  );
  const space = await inside.query(
    `SELECT array(SELECT x::text FROM unnest(nspacl) x ORDER BY 1) AS acl FROM pg_namespace WHERE nspname = $1`,
    [SCHEMA],
  );
  await inside.end();
  const members = await mad.admin.query(
    `SELECT member::regrole::text, roleid::regrole::text AS role, inherit_option, set_option, admin_option
     FROM pg_auth_members WHERE member::regrole::text LIKE $1 ORDER BY 1, 2`,
    [user.replace(/_[ab]$/, '%')],
  );
  const walls = await mad.admin.query(
    'SELECT array(SELECT x::text FROM unnest(datacl) x ORDER BY 1) AS acl FROM pg_database WHERE datname = $1',
    [database],
  );
  const objects = await schemaFingerprint(url, SCHEMA);
  return { objects, defaults: defaults.rows, space: space.rows, members: members.rows, walls: walls.rows };
}

test('a read-only tenant refuses writes, also in sessions already open, is read on, and is resumed exactly', async () => {
  const orgId = await ensure();
  const before = await route(orgId);
  const rights = await rightsOf(before);
  const idle = await session(before);
  const begun = await session(before);
  await begun.query('BEGIN');
  await begun.query('SELECT count(*) FROM notes');
  const written = await session(before);
  await written.query('BEGIN');
  await written.query(`INSERT INTO notes (body) VALUES ('never committed')`);
  const working = failure(
    tenants.transact(orgId, async (tx) => {
      await tx.execute(`INSERT INTO notes (body) VALUES ('never committed')`);
      await tx.query('SELECT pg_sleep(30)');
    }),
  );
  const reading = idle.query('SELECT count(*)::int AS n, pg_sleep(0.2) FROM notes');
  await delay(100);

  const { tenants: frozen } = await mad.tenants().freezeTenants({ orgId });
  expect(frozen).toMatchObject([{ state: TenantState.READ_ONLY, generation: before.generation + 1n, step: '' }]);

  // Running work: what had written is ended, a short read is not.
  expect(await working).toMatchObject({ code: Code.FailedPrecondition, rawMessage: 'the organization is read-only' });
  await expect(written.query('COMMIT')).rejects.toThrow();
  await expect(begun.query('COMMIT')).rejects.toThrow();
  expect((await reading).rows).toMatchObject([{ n: 1 }]);
  // The session that was open before reads on, and no setting of its own lets it write.
  await idle.query('SET default_transaction_read_only = off');
  expect((await idle.query('SELECT star_count() AS stars FROM notes')).rows).toHaveLength(1);
  for (const statement of [
    `INSERT INTO notes (body) VALUES ('x')`,
    `UPDATE notes SET body = 'y'`,
    'DELETE FROM notes',
    'TRUNCATE notes',
    `SET ROLE mad_${SCHEMA}_app`,
    `SET ROLE mad_${SCHEMA}_owner`,
    'CREATE TABLE mine (n int)',
    'CREATE TEMPORARY TABLE mine (n int)',
  ]) {
    await expect(idle.query(statement)).rejects.toMatchObject(REFUSED);
  }
  // Through the router as well, with a reason, and reads go on.
  const refused = await failure(write(orgId));
  expect([refused.code, reasonOf(refused), refused.rawMessage]).toEqual([
    Code.FailedPrecondition,
    'TENANT_SUSPENDED',
    'the organization is read-only',
  ]);
  expect(await count(orgId)).toBe(1);
  // A repeat changes nothing.
  expect((await mad.tenants().freezeTenants({ orgId })).tenants).toEqual(frozen);

  const { tenants: resumed } = await mad.tenants().resumeTenants({ orgId });
  expect(resumed).toMatchObject([{ state: TenantState.READY, generation: before.generation + 2n }]);
  expect(await rightsOf(before)).toEqual(rights);
  // Also the session that lived through it.
  await idle.query(`INSERT INTO notes (body) VALUES ('again')`);
  await until(
    () =>
      write(orgId).then(
        (n) => n === 1,
        () => false,
      ),
    'the router heard of it',
  );
  expect(await count(orgId)).toBe(3);
  await Promise.all([idle, begun, written].map((client) => client.end().catch(() => undefined)));
}, 60_000);

test('a neighbour on the same server notices nothing', async () => {
  const [orgId, other] = [await ensure(), await ensure()];
  await mad.tenants().freezeTenants({ orgId });
  expect(await write(other)).toBe(1);
  // The server refuses at once; the router as soon as it has heard.
  await until(
    async () => (await failure(write(orgId))).rawMessage === 'the organization is read-only',
    'the router heard of it',
  );
});

test('suspended, read-only and in use follow each other in every order', async () => {
  const orgId = await ensure();
  const client = mad.tenants();
  const before = await route(orgId);
  const rights = await rightsOf(before);
  await client.suspendTenants({ orgId });
  const { tenants: frozen } = await client.freezeTenants({ orgId });
  expect(frozen).toMatchObject([{ state: TenantState.READ_ONLY, generation: before.generation + 2n }]);
  await until(
    () =>
      count(orgId).then(
        (n) => n === 1,
        () => false,
      ),
    'it can be read again',
  );
  const open = await session(await route(orgId));
  await expect(open.query('DELETE FROM notes')).rejects.toMatchObject(REFUSED);
  await client.suspendTenants({ orgId });
  await expect(open.query('SELECT count(*) FROM notes')).rejects.toThrow();
  expect(await stateOf(orgId)).toBe(TenantState.SUSPENDED);
  await expect(session(before)).rejects.toMatchObject(REFUSED);
  await client.resumeTenants({ orgId });
  expect(await rightsOf(before)).toEqual(rights);
  await until(
    () =>
      write(orgId).then(
        (n) => n === 1,
        () => false,
      ),
    'it can be written again',
  );
  await open.end().catch(() => undefined);
}, 60_000);

test('a read-only tenant can be given another login, and what is made in it meanwhile can be read', async () => {
  const orgId = await ensure();
  await mad.tenants().freezeTenants({ orgId });
  const token = await platformToken({ permissions: ['platform.tenants.rotate'] });
  const before = await route(orgId);
  const { login } = await mad.tenantsAs(token).rotateTenantCredentials({ orgId, schema: SCHEMA, requestId: uuidv7() });
  expect(login).not.toBe(before.user);
  const url = Object.assign(new URL(testCluster().adminUrl), { pathname: `/${before.database}` }).href;
  const owner = new pg.Client(clientOptions(url));
  await owner.connect();
  await owner.query(`SET ROLE mad_${SCHEMA}_owner; CREATE TABLE ${SCHEMA}.later (n int)`);
  await owner.end();
  const open = await session(await route(orgId));
  expect((await open.query('SELECT * FROM later')).rows).toEqual([]);
  await expect(open.query('INSERT INTO later VALUES (1)')).rejects.toMatchObject(REFUSED);
  await expect(open.query('DELETE FROM notes')).rejects.toMatchObject(REFUSED);
  await mad.tenants().resumeTenants({ orgId });
  await open.query('INSERT INTO later VALUES (1)');
  await open.end();
}, 60_000);

test('from the commit that makes a tenant read-only it takes no second until nothing can be written, with work going on', async () => {
  const orgId = await ensure();
  const place = await route(orgId);
  // By the clock of the rows, from the change of the state to the end of what it asks of the server. A busy machine makes
  // any single one late, and code that is too slow all of them.
  let least = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 10 && least > 1_000; attempt += 1) {
    const writer = await session(place);
    await writer.query(`BEGIN; INSERT INTO notes (body) VALUES ('never committed')`);
    const reader = await session(place);
    await reader.query('BEGIN; SELECT count(*) FROM notes');
    await mad.tenants().freezeTenants({ orgId });
    await expect(writer.query('COMMIT')).rejects.toThrow();
    await expect(reader.query('COMMIT')).rejects.toThrow();
    const { rows } = await mad.rows.query<{ ms: number }>(
      `SELECT (extract(epoch FROM ended_at - started_at) * 1000)::int AS ms FROM provisioner.operations
       WHERE org_id = $1 AND kind = 'freeze' ORDER BY started_at DESC LIMIT 1`,
      [orgId],
    );
    least = Math.min(least, rows[0]!.ms);
    await mad.tenants().resumeTenants({ orgId });
  }
  expect(least).toBeLessThanOrEqual(1_000);
}, 120_000);

test('a process that dies before its step is noted as done is followed by one that repeats every step', async () => {
  const orgId = await ensure();
  const rights = await rightsOf(await route(orgId));
  const again = async (kind: string, step: string): Promise<void> => {
    await mad.rows.query('BEGIN');
    await mad.rows.query(
      `UPDATE provisioner.operations SET state = 'running', ended_at = NULL WHERE org_id = $1 AND kind = $2`,
      [orgId, kind],
    );
    await mad.rows.query(`UPDATE provisioner.tenants SET step = $2 WHERE org_id = $1`, [orgId, step]);
    await mad.rows.query('COMMIT');
    await until(async () => {
      const { rowCount } = await mad.rows.query('SELECT FROM provisioner.tenants WHERE org_id = $1 AND step IS NULL', [
        orgId,
      ]);
      return rowCount === 1;
    }, `${kind} was done again`);
  };
  await mad.tenants().freezeTenants({ orgId });
  for (const step of ['close_writes', 'open_connections']) await again('freeze', step);
  expect(await stateOf(orgId)).toBe(TenantState.READ_ONLY);
  const open = await session(await route(orgId));
  await expect(open.query('DELETE FROM notes')).rejects.toMatchObject(REFUSED);
  await open.end();
  await mad.tenants().resumeTenants({ orgId });
  for (const step of ['open_writes', 'open_connections']) await again('resume', step);
  expect(await stateOf(orgId)).toBe(TenantState.READY);
  expect(await rightsOf(await route(orgId))).toEqual(rights);
}, 60_000);
