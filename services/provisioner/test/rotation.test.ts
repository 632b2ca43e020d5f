import { setTimeout as delay } from 'node:timers/promises';
import { Code, type Client } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { OperationState, type Route, type TenantService, TenantState } from '@mad/proto/provisioner';
import { reasonOf } from '@mad/rpc';
import { openTenants, type Tenants } from '@mad/tenancy';
import { platformToken, testCluster } from '@mad/testing';
import pg from 'pg';
import { silent } from './neighbours.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'rotation';
const GRACE_MS = 1_500;
const ADMIN = uuidv7();

let mad: RunningProvisioner;
let platform: Client<typeof TenantService>;
const opened: Tenants[] = [];

beforeAll(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    environment: { PROVISIONER_ROTATE_GRACE_MS: String(GRACE_MS), PROVISIONER_SWEEP_MS: '100' },
  });
  platform = mad.tenantsAs(await platformToken({ userId: ADMIN, permissions: ['platform.tenants.rotate'] }));
});

afterAll(async () => {
  await Promise.all(opened.map((tenants) => tenants.close()));
  await mad?.close();
});

async function ensure(): Promise<string> {
  const orgId = uuidv7();
  await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  return orgId;
}

async function open(node: string): Promise<Tenants> {
  const routes = mad.transport('results');
  const tenants = await openTenants({ schema: SCHEMA, entities: [], routes, node, logger: silent });
  opened.push(tenants);
  return tenants;
}

const rotate = (orgId: string, requestId: string = uuidv7()) =>
  platform.rotateTenantCredentials({ orgId, schema: SCHEMA, requestId });

async function route(orgId: string): Promise<Route> {
  return (await mad.routes().getRoute({ orgId, schema: SCHEMA })).route!;
}

/** Logs in as a route says. */
async function login({ user, password, database }: Route): Promise<pg.Client> {
  const client = new pg.Client({ ...clientOptions(testCluster().adminUrl), user, password, database });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

async function sessionsOf(user: string): Promise<number> {
  const { rowCount } = await mad.admin.query('SELECT FROM pg_stat_activity WHERE usename = $1', [user]);
  return rowCount!;
}

async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  for (let wait = 0; wait < 1_000; wait += 1) {
    if (await condition()) return;
    await delay(20);
  }
  throw new Error(`waited in vain until ${what}`);
}

const nothingLeft = async (orgId: string): Promise<boolean> => {
  const { rowCount } = await mad.rows.query(
    'SELECT FROM provisioner.tenant_credentials WHERE org_id = $1 AND retire_at IS NOT NULL',
    [orgId],
  );
  return rowCount === 0;
};

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => {
      throw new Error('was not refused');
    },
    (error: unknown) => error,
  );

describe('a rotation', () => {
  test('again and again under load fails no query and loses no write', async () => {
    const orgId = await ensure();
    const nodes = [await open('node-1'), await open('node-2')];
    const failures: unknown[] = [];
    let written = 0;
    let reads = 0;
    let over = false;
    const writer = async (tenants: Tenants): Promise<void> => {
      while (!over) {
        try {
          await tenants.transact(orgId, async (tx) => {
            await tx.execute(`INSERT INTO notes (body) VALUES ('x')`);
            await tx.query('SELECT pg_sleep(0.005)');
          });
          written += 1;
        } catch (error) {
          failures.push(error);
        }
      }
    };
    const reader = async (tenants: Tenants): Promise<void> => {
      while (!over) {
        try {
          await tenants.read(orgId, (tx) => tx.query('SELECT count(*) FROM notes'));
          reads += 1;
        } catch (error) {
          failures.push(error);
        }
      }
    };
    const load = nodes.flatMap((tenants) => [writer(tenants), writer(tenants), reader(tenants)]);
    const users = new Set<string>();
    const passwords = new Set<string>();
    // Every login comes in use several times, and graces end while the load goes on.
    for (const end = performance.now() + 6_000; performance.now() < end || passwords.size < 8;) {
      await rotate(orgId);
      const { user, password, generation } = await route(orgId);
      expect(generation).toBe(2n);
      users.add(user);
      passwords.add(password);
      await delay(250);
    }
    await until(() => nothingLeft(orgId), 'the last grace was over');
    over = true;
    await Promise.all(load);
    expect(failures).toEqual([]);
    expect(users.size).toBe(2);
    expect(passwords.size).toBeGreaterThanOrEqual(8);
    expect(written).toBeGreaterThan(100);
    expect(reads).toBeGreaterThan(100);
    const [row] = await nodes[0]!.read(orgId, (tx) => tx.query<{ n: number }>('SELECT count(*)::int AS n FROM notes'));
    expect(row!.n).toBe(written);
  }, 120_000);

  test('lets a transaction under the login before finish, then ends its sessions and makes its password worthless', async () => {
    const orgId = await ensure();
    const tenants = await open('node-3');
    const before = await route(orgId);
    const working = Promise.withResolvers<void>();
    const mayEnd = Promise.withResolvers<void>();
    const work = tenants.transact(orgId, async (tx) => {
      await tx.execute(`INSERT INTO notes (body) VALUES ('long')`);
      working.resolve();
      await mayEnd.promise;
    });
    await working.promise;
    // Somebody knows the password, and is in already.
    const thief = await login(before);
    const answer = await rotate(orgId);
    expect(answer.login).not.toBe(before.user);
    expect(answer.retireTime).toBeDefined();
    mayEnd.resolve();
    await work;
    const after = await route(orgId);
    expect(after).toMatchObject({ user: answer.login, generation: before.generation });
    await (await login(after)).end();

    await until(() => nothingLeft(orgId), 'the grace was over');
    expect(await sessionsOf(before.user)).toBe(0);
    await expect(thief.query('SELECT 1')).rejects.toThrow();
    await expect(login(before)).rejects.toMatchObject({ code: '28P01' });
    expect(await tenants.read(orgId, (tx) => tx.query('SELECT body FROM notes'))).toEqual([{ body: 'long' }]);
    await thief.end();
  }, 60_000);

  test('back to a login within its grace ends the sessions under its old password and no others', async () => {
    const orgId = await ensure();
    const before = await route(orgId);
    const thief = await login(before);
    await rotate(orgId);
    await rotate(orgId);
    const after = await route(orgId);
    expect(after.user).toBe(before.user);
    // The old password is worthless from the second rotation on, however long the grace of its sessions.
    await expect(login(before)).rejects.toMatchObject({ code: '28P01' });
    const mine = await login(after);
    await until(() => nothingLeft(orgId), 'the grace was over');
    await expect(thief.query('SELECT 1')).rejects.toThrow();
    expect((await mine.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    await mine.end();
    await thief.end();
  }, 60_000);

  test('reaches a node that does nothing: it keeps no idle connection under the login before', async () => {
    const orgId = await ensure();
    const tenants = await open('node-4');
    await tenants.read(orgId, (tx) => tx.query('SELECT 1'));
    const { user } = await route(orgId);
    expect(await sessionsOf(user)).toBe(1);
    await rotate(orgId);
    await until(async () => (await sessionsOf(user)) === 0, 'the idle connection was closed');
    const { rows } = await mad.rows.query<{ early: boolean }>(
      'SELECT retire_at > now() AS early FROM provisioner.tenant_credentials WHERE org_id = $1 AND NOT active',
      [orgId],
    );
    expect(rows).toEqual([{ early: true }]);
  }, 60_000);

  test('is done once for each request id, and says who asked for it', async () => {
    const orgId = await ensure();
    const requestId = uuidv7();
    const [first, again] = await Promise.all([rotate(orgId, requestId), rotate(orgId, requestId)]);
    expect(again.operationId).toBe(first.operationId);
    expect((await rotate(orgId, requestId)).login).toBe(first.login);
    const { operations } = await mad.operations().listOperations({ orgId, kind: 'rotate' });
    expect(operations).toHaveLength(1);
    expect(operations[0]).toMatchObject({ state: OperationState.SUCCEEDED, actorKind: 'platform', userId: ADMIN });
    // No password, and nothing it could be guessed from.
    expect(operations[0]!.params).toEqual({ request_id: requestId, slot: 'b' });
    expect(operations[0]!.result).toEqual({});
  });

  test('that fails leaves the login in use as it was, and can be asked for again', async () => {
    const orgId = await ensure();
    const before = await route(orgId);
    const passive = before.user.replace(/_a$/, '_b');
    await mad.admin.query(`ALTER ROLE ${passive} NOLOGIN`);
    const refused = await failure(rotate(orgId));
    expect(refused).toMatchObject({ code: Code.FailedPrecondition });
    expect(String(refused)).toContain('not permitted to log in');
    expect(await route(orgId)).toMatchObject({ user: before.user, password: before.password });
    await (await login(before)).end();
    await mad.admin.query(`ALTER ROLE ${passive} LOGIN`);
    expect((await rotate(orgId)).login).toBe(passive);
  });

  test('of a suspended tenant or of none is refused by name', async () => {
    const orgId = await ensure();
    await mad.tenants().suspendTenants({ orgId });
    expect(reasonOf(await failure(rotate(orgId)))).toBe('TENANT_SUSPENDED');
    expect(await failure(rotate(uuidv7()))).toMatchObject({ code: Code.NotFound });
    await mad.tenants().resumeTenants({ orgId });
    await rotate(orgId);
    const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    expect(tenant!.state).toBe(TenantState.READY);
  });
});

test('a server that is away, with a hundred replaced logins due, keeps none elsewhere from its end', async () => {
  const orgId = await ensure();
  const { server } = await mad.servers().registerServer({
    name: 'away',
    host: '127.0.0.1',
    port: 1,
    region: 'nowhere',
    provisionerPassword: 'x',
    migratorPassword: 'x',
  });
  // As its own are: due since before anybody else's.
  const { rowCount } = await mad.rows.query(
    `WITH org AS (SELECT gen_random_uuid() AS org_id FROM generate_series(1, 100)),
       key AS (INSERT INTO provisioner.data_keys (org_id, version, wrapped_key, master_key_version)
         SELECT org.org_id, k.version, k.wrapped_key, k.master_key_version FROM org, provisioner.data_keys k
         WHERE k.org_id = $1 RETURNING org_id),
       tenant AS (INSERT INTO provisioner.tenants (org_id, schema, server_id, database_name, region, state, operation_id, ready_at)
         SELECT org.org_id, t.schema, $2, 'mad_${SCHEMA}_' || replace(org.org_id::text, '-', ''), t.region, t.state,
           t.operation_id, t.ready_at FROM org, provisioner.tenants t WHERE t.org_id = $1 RETURNING org_id)
     INSERT INTO provisioner.tenant_credentials (org_id, schema, slot, role_name, secret, data_key_version, active, retire_at)
     SELECT org.org_id, c.schema, c.slot, 'mad_${SCHEMA}_' || replace(org.org_id::text, '-', '') || '_' || c.slot, c.secret,
       c.data_key_version, c.active, CASE WHEN NOT c.active THEN now() - interval '1 day' END
     FROM org, provisioner.tenant_credentials c WHERE c.org_id = $1`,
    [orgId, server!.serverId],
  );
  expect(rowCount).toBe(200);
  try {
    const before = await route(orgId);
    await rotate(orgId);
    await until(() => nothingLeft(orgId), 'the grace was over');
    await expect(login(before)).rejects.toMatchObject({ code: '28P01' });
    const { rows } = await mad.rows.query<{ due: number }>(
      'SELECT count(*)::int AS due FROM provisioner.tenant_credentials WHERE retire_at <= now()',
    );
    expect(rows).toEqual([{ due: 100 }]);
  } finally {
    await mad.rows.query(
      `DELETE FROM provisioner.tenant_credentials c USING provisioner.tenants t
       WHERE t.org_id = c.org_id AND t.server_id = $1`,
      [server!.serverId],
    );
    await mad.rows.query('DELETE FROM provisioner.tenants WHERE server_id = $1', [server!.serverId]);
  }
}, 60_000);

test('passwords that have grown old are replaced, the oldest first, so many per minute', async () => {
  const orgs = [await ensure(), await ensure(), await ensure()];
  await mad.stop();
  mad.environment.PROVISIONER_ROTATE_PER_MINUTE = '2';
  await mad.rows.query(`UPDATE provisioner.operations SET started_at = started_at - interval '1 hour'`);
  for (const [days, orgId] of [40, 60, 50].map((days, n) => [days, orgs[n]!] as const)) {
    await mad.rows.query(
      `UPDATE provisioner.tenant_credentials SET set_at = now() - $2 * interval '1 day' WHERE org_id = $1`,
      [orgId, days],
    );
  }
  await mad.start();
  const rotated = async (): Promise<string[]> => {
    const { rows } = await mad.rows.query<{ org_id: string }>(
      `SELECT org_id FROM provisioner.operations WHERE kind = 'rotate' AND state = 'succeeded' AND org_id = ANY ($1)
       ORDER BY started_at, operation_id`,
      [orgs],
    );
    return rows.map(({ org_id: orgId }) => orgId);
  };
  await until(async () => (await rotated()).length === 2, 'two were replaced');
  await delay(500);
  expect(await rotated()).toEqual([orgs[1], orgs[2]]);
  // A minute later.
  await mad.rows.query(`UPDATE provisioner.operations SET started_at = started_at - interval '1 minute'`);
  await until(async () => (await rotated()).length === 3, 'the third was replaced');
}, 60_000);
