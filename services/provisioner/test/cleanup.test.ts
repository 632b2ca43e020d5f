import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { TenantState } from '@mad/proto/provisioner';
import { testCluster } from '@mad/testing';
import { failure, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'clean';
const NOBODY = '00000000-0000-0000-0000-000000000000';
/** More than one round takes of a server. */
const MANY = 105;

/** Accepts every connection and never says a word. */
let mute: Server;
const callers: Socket[] = [];
let mad: RunningProvisioner;

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

beforeAll(async () => {
  mute = createServer((socket) => {
    callers.push(socket);
    socket.on('error', () => undefined);
  });
  const closed = createServer();
  const closedPort = await listening(closed);
  await new Promise((resolve) => closed.close(resolve));
  const password = (role: string): string => new URL(testCluster().url(role, 'postgres')).password;
  const passwords = {
    provisioner_password: password('mad_provisioner_admin'),
    migrator_password: password('mad_migrator'),
  };
  const server = (name: string, region: string, place: object): object => ({
    name,
    region,
    ...place,
    connection_budget: 20,
    ...passwords,
  });
  mad = await runProvisioner({
    schema: SCHEMA,
    environment: {
      // Nothing is placed on the two that are away.
      PROVISIONER_SERVERS: JSON.stringify([
        server('shut', 'elsewhere', { host: '127.0.0.1', port: closedPort }),
        server('mute', 'elsewhere', { host: '127.0.0.1', port: await listening(mute) }),
        server('local', 'local', testCluster().place),
      ]),
      PROVISIONER_SWEEP_MS: '100',
      PROVISIONER_CLEANUP_GRACE_MS: '0',
      PROVISIONER_SERVER_SAMPLE_MS: '3600000',
    },
  });
});

afterAll(async () => {
  await mad?.close();
  for (const caller of callers) caller.destroy();
  await new Promise((resolve) => mute.close(resolve));
});

async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  for (let wait = 0; wait < 1_500; wait += 1) {
    if (await condition()) return;
    await delay(20);
  }
  throw new Error(`waited in vain until ${what}`);
}

/** Notes that a finished operation left these on a server. */
async function leave(server: string, kind: 'database' | 'role', names: string[]): Promise<void> {
  await mad.rows.query(
    `WITH operation AS (
       INSERT INTO provisioner.operations (operation_id, org_id, schema, kind, state, ended_at, actor_kind)
       VALUES (gen_random_uuid(), $1, $2, 'reconcile', 'succeeded', now(), 'platform') RETURNING operation_id)
     INSERT INTO provisioner.cleanup_records (operation_id, org_id, schema, server_id, object_kind, object_name)
     SELECT operation_id, $1, $2, server_id, $4, object_name
     FROM operation, provisioner.database_servers, unnest($5::text[]) object_name WHERE name = $3`,
    [NOBODY, SCHEMA, server, kind, names],
  );
}

const named = (what: string, count: number): string[] =>
  Array.from({ length: count }, (_, n) => `mad_${SCHEMA}_${what}_${String(n).padStart(4, '0')}`);

const isLeft = async (name: string): Promise<boolean> =>
  (await mad.rows.query('SELECT FROM provisioner.cleanup_records WHERE object_name = $1', [name])).rowCount === 1;

describe('cleaning up', () => {
  test('passes by servers that are away: others lose their leavings, and a crashed operation is taken up meanwhile', async () => {
    const orgId = uuidv7();
    const made = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    expect(made.tenant).toMatchObject({ state: TenantState.READY, lastError: '' });
    await leave('shut', 'database', named('shut', MANY));
    await leave('mute', 'database', named('mute', MANY));
    const before = callers.length;
    await until(() => Promise.resolve(callers.length > before), 'the mute server is asked');

    // A run that waits for its turn at the tenant dies, and nobody asks for its operation again: its lease becomes
    // somebody's who does nothing.
    const lock = [`mad.tenant.${SCHEMA}.${orgId}`];
    await mad.admin.query('SELECT pg_advisory_lock(hashtextextended($1, 0))', lock);
    await failure(mad.tenants().suspendTenants({ orgId }, { timeoutMs: 1_000 }));
    const { rowCount: stolen } = await mad.rows.query(
      `UPDATE provisioner.tenants SET step_owner = $2, step_lease_until = now() + interval '500 ms'
       WHERE org_id = $1 AND step = 'close_connections' AND step_owner IS NOT NULL`,
      [orgId, uuidv7()],
    );
    expect(stolen).toBe(1);
    await mad.admin.query('SELECT pg_advisory_unlock(hashtextextended($1, 0))', lock);

    const leaving = `mad_${SCHEMA}_zzz`;
    await mad.admin.query(`CREATE DATABASE ${leaving} OWNER mad_provisioner_admin`);
    await leave('local', 'database', [leaving]);
    await until(async () => !(await isLeft(leaving)), 'the leaving of the local server is removed');
    expect((await mad.objects()).databases).not.toContain(leaving);
    await until(async () => {
      const { rowCount } = await mad.rows.query(
        `SELECT FROM provisioner.tenants WHERE org_id = $1 AND state = 'suspended' AND step IS NULL`,
        [orgId],
      );
      return rowCount === 1;
    }, 'the suspension is carried out');
    // They wait for their servers to come back.
    const { rowCount } = await mad.rows.query(
      `SELECT FROM provisioner.cleanup_records r JOIN provisioner.database_servers s USING (server_id) WHERE s.name <> 'local'`,
    );
    expect(rowCount).toBe(2 * MANY);
  }, 120_000);

  test('goes on behind what cannot be removed', async () => {
    // Made by the superuser: nobody else may drop them.
    const stuck = named('stuck', MANY);
    await mad.admin.query(stuck.map((name) => `CREATE ROLE ${name}`).join(';'));
    const last = `mad_${SCHEMA}_zzz_role`;
    await mad.admin.query(`SET ROLE mad_provisioner_admin; CREATE ROLE ${last}; RESET ROLE`);
    await leave('local', 'role', [...stuck, last]);
    await until(async () => !(await isLeft(last)), 'the last one is removed');
    const { roles } = await mad.objects();
    expect(roles).not.toContain(last);
    expect(roles).toEqual(expect.arrayContaining(stuck));
    // Nobody is told that they are gone.
    expect(await isLeft(stuck[0]!)).toBe(true);
  }, 120_000);
});
