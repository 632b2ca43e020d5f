import { createServer } from 'node:net';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { Code, createClient } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { bootstrapTenantServer } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { ServerService, TenantState } from '@mad/proto/provisioner';
import { errorMetadataOf, reasonOf, violationsOf } from '@mad/rpc';
import { platformToken, testCluster } from '@mad/testing';
import { failure, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'placed';

let mad: RunningProvisioner;

beforeAll(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    environment: {
      PROVISIONER_SERVER_SAMPLE_MS: '200',
      PROVISIONER_STOCK_SIZE: '1',
      PROVISIONER_STOCK_PER_MINUTE: '6000',
    },
  });
});

afterAll(() => mad?.close());

const servers = () => mad.servers();

/** The test's own server under another name: tenants on it are on the same machine, which placement does not know. */
function registration(name: string, region: string, more: object = {}) {
  const password = (role: string): string => new URL(testCluster().url(role, 'postgres')).password;
  return {
    name,
    ...testCluster().place,
    region,
    connectionBudget: 10,
    provisionerPassword: password('mad_provisioner_admin'),
    migratorPassword: password('mad_migrator'),
    ...more,
  };
}

async function ensure(region: string): Promise<string> {
  const orgId = uuidv7();
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA, region });
  expect(tenant).toMatchObject({ state: TenantState.READY, lastError: '' });
  return orgId;
}

async function sampled(name: string): Promise<void> {
  for (let wait = 0; wait < 500; wait += 1) {
    const { servers: found } = await servers().listServers({});
    if (found.find((one) => one.name === name)?.sampleTime !== undefined) return;
    await delay(20);
  }
  throw new Error(`${name} was never looked at`);
}

// First: the servers of the other tests are this one under other names, and one at a time is stocked.
test('a drained server keeps its tenants and loses its stock', async () => {
  await servers().registerServer(registration('stocked', 'r-stock'));
  const orgId = await ensure('r-stock');
  const stockOf = async (): Promise<number> =>
    (await servers().listServers({})).servers.find(({ name }) => name === 'stocked')!.stock;
  const becomes = async (wanted: number): Promise<void> => {
    for (let wait = 0; wait < 3_000 && (await stockOf()) !== wanted; wait += 1) await delay(20);
    expect(await stockOf()).toBe(wanted);
  };
  await becomes(1);
  await servers().drainServer({ name: 'stocked' });
  await becomes(0);
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  expect(tenant!.state).toBe(TenantState.READY);
  await mad.routes().getRoute({ orgId, schema: SCHEMA });
}, 150_000);

describe('registering', () => {
  test('with a check looks at the server first: login, preparation, room; nothing is registered otherwise', async () => {
    await bootstrapTenantServer(testCluster().adminUrl, {
      provisionerPassword: registration('x', 'x').provisionerPassword,
      migratorPassword: registration('x', 'x').migratorPassword,
      schema: SCHEMA,
    });
    const { server } = await servers().registerServer({
      ...registration('checked', 'r-check', { check: true }),
      labels: { disk: 'nvme' },
      reservedConnections: 3,
    });
    expect(server).toMatchObject({
      name: 'checked',
      labels: { disk: 'nvme' },
      reservedConnections: 3,
      draining: false,
    });

    const closed = createServer().listen(0, '127.0.0.1');
    await once(closed, 'listening');
    const { port } = closed.address() as { port: number };
    closed.close();
    for (const [more, message] of [
      [{ port }, /^refused: it does not answer$/],
      [{ provisionerPassword: 'wrong' }, /^refused: it does not let mad_provisioner_admin in with this password$/],
      [{ migratorPassword: 'wrong' }, /^refused: it does not let mad_migrator in with this password$/],
      [
        { connectionBudget: 9_999 },
        /^refused: it allows \d+ connections beside those it reserves, budget and reserve need 10004$/,
      ],
    ] as const) {
      const error = await failure(
        servers().registerServer({ ...registration('refused', 'r-check', { check: true }), ...more }),
      );
      expect([error.code, reasonOf(error)]).toEqual([Code.FailedPrecondition, 'DATABASE_UNAVAILABLE']);
      expect(error.rawMessage).toMatch(message);
      expect(JSON.stringify([error.rawMessage, errorMetadataOf(error)])).not.toMatch(/wrong/);
    }
    const { servers: listed } = await servers().listServers({});
    expect(listed.map(({ name }) => name)).not.toContain('refused');
    // A repeat that says no reserve is measured with the one that stays.
    const again = registration('checked', 'r-check', { check: true, connectionBudget: 9_999 });
    expect((await failure(servers().registerServer(again))).rawMessage).toMatch(/budget and reserve need 10002$/);
  });

  test('the configuration brings address and passwords at each start, and leaves what an operator set', async () => {
    await servers().updateServer({ name: 'local', maxTenants: 77, connectionBudget: 19, labels: { rack: '4' } });
    await servers().drainServer({ name: 'local' });
    await mad.rows.query(`UPDATE provisioner.database_servers SET port = 1 WHERE name = 'local'`);
    await mad.stop();
    await mad.start();
    const { servers: found } = await servers().listServers({});
    expect(found.find(({ name }) => name === 'local')).toMatchObject({
      port: testCluster().port,
      maxTenants: 77,
      connectionBudget: 19,
      draining: true,
      labels: { rack: '4' },
    });
    await servers().drainServer({ name: 'local', undo: true });
  });

  test('labels are set and taken away one by one; a bad one, an unknown server and whoever may not are refused', async () => {
    await servers().updateServer({ name: 'local', labels: { rack: '5', disk: 'hdd' } });
    const { server } = await servers().updateServer({ name: 'local', labels: { rack: '' } });
    expect(server!.labels).toEqual({ disk: 'hdd' });
    const bad = await failure(servers().updateServer({ name: 'local', labels: { 'Not one': 'x' } }));
    expect([bad.code, violationsOf(bad)[0]!.field]).toEqual([Code.InvalidArgument, 'labels["Not one"]']);
    for (const ask of [servers().updateServer, servers().drainServer]) {
      expect((await failure(ask({ name: 'nobody' }))).code).toBe(Code.NotFound);
    }
    const reader = createClient(
      ServerService,
      mad.as(() => platformToken({ permissions: ['platform.servers.read'] })),
    );
    for (const ask of [reader.updateServer, reader.drainServer]) {
      expect((await failure(ask({ name: 'local' }))).code).toBe(Code.PermissionDenied);
    }
  });
});

describe('placement', () => {
  test('WhyHere tells of every server what was said of it when the tenant was placed', async () => {
    await servers().registerServer(registration('why-a', 'r-why', { connectionBudget: 1_000 }));
    await servers().registerServer(registration('why-b', 'r-why', { maxTenants: 1 }));
    await servers().registerServer(registration('why-c', 'r-why'));
    await servers().drainServer({ name: 'why-c' });
    for (const name of ['why-a', 'why-b']) await sampled(name);
    const orgId = await ensure('r-why');
    const why = await servers().whyHere({ orgId, schema: SCHEMA });
    expect(why).toMatchObject({ server: 'why-a', region: 'r-why', weights: { tenants: 0.4 } });
    const said = new Map(why.verdicts.map((one) => [one.server, one]));
    expect(said.get('why-a')).toMatchObject({ refused: '', parts: { tenants: 0 } });
    expect(Object.keys(said.get('why-a')!.parts).sort()).toEqual(['connections', 'load', 'size', 'tenants']);
    expect(said.get('why-b')!.refused).toBe('');
    expect(said.get('why-c')!.refused).toBe('draining');
    expect(said.get('local')!.refused).toBe('other_region');
    // What it was then stays, whatever becomes of the servers.
    await servers().drainServer({ name: 'why-a' });
    expect(await servers().whyHere({ orgId, schema: SCHEMA })).toEqual(why);
    const unknown = await failure(servers().whyHere({ orgId: uuidv7(), schema: SCHEMA }));
    expect(unknown.code).toBe(Code.NotFound);
  });

  test('a server that is full, drained or does not answer takes none: each is a named reason', async () => {
    await servers().registerServer(registration('only-full', 'r-none', { maxTenants: 1 }));
    await ensure('r-none');
    await servers().registerServer(registration('only-drained', 'r-none'));
    await servers().drainServer({ name: 'only-drained' });
    await servers().registerServer(registration('only-away', 'r-none', { port: 1 }));
    await sampled('only-away');
    const error = await failure(mad.tenants().ensureTenant({ orgId: uuidv7(), schema: SCHEMA, region: 'r-none' }));
    expect([error.code, reasonOf(error)]).toEqual([Code.FailedPrecondition, 'NO_SERVER_AVAILABLE']);
    expect(error.rawMessage).toBe(
      'region: no server in r-none takes another database: only-away does not answer, only-drained is drained, only-full is full',
    );
    expect(errorMetadataOf(error)['servers']).toBe('only-away=unreachable,only-drained=draining,only-full=full');
    await servers().drainServer({ name: 'only-drained', undo: true });
    await ensure('r-none');
  });
});

describe('the plan of a rebalancing', () => {
  test('empties a drained server into its region, names sizes, and moves nothing', async () => {
    await servers().registerServer(registration('old', 'r-plan'));
    const orgId = await ensure('r-plan');
    await servers().registerServer(registration('new', 'r-plan'));
    await servers().drainServer({ name: 'old' });
    const before = await mad.rows.query('SELECT org_id, server_id FROM provisioner.tenants ORDER BY 1');
    const { moves } = await servers().planRebalance({});
    const mine = moves.filter((move) => move.orgId === orgId);
    expect(mine).toMatchObject([{ schema: SCHEMA, from: 'old', to: 'new', reason: 'draining' }]);
    expect(mine[0]!.sizeBytes).toBeGreaterThan(1_000_000n);
    expect(await mad.rows.query('SELECT org_id, server_id FROM provisioner.tenants ORDER BY 1')).toMatchObject({
      rows: before.rows,
    });
    await servers().updateServer({ name: 'new', maxTenants: 1 });
    await ensure('r-plan');
    const { stuck } = await servers().planRebalance({});
    expect(stuck.filter((one) => one.orgId === orgId)).toMatchObject([{ from: 'old', to: '' }]);
  });
});

test('who registered, changed and drained a server is told to identity, and no password', async () => {
  const userId = uuidv7();
  const permissions = ['create', 'update'].map((verb) => `platform.servers.${verb}`);
  const client = createClient(
    ServerService,
    mad.as(() => platformToken({ userId, permissions })),
  );
  const name = 'audited';
  const secret = registration(name, 'r-audit');
  await client.registerServer(secret);
  await client.updateServer({ name, maxTenants: 5 });
  for (let again = 0; again < 2; again += 1) await client.drainServer({ name });
  await client.setServerStandbys({ name, standbys: [{ host: '127.0.0.1', port: 1 }] });
  const told = () => mad.events.filter((event) => event.entityId === name);
  for (let wait = 0; told().length < 4 && wait < 600; wait += 1) await delay(50);
  // They may be delivered in another order than they were noted.
  const actions = new Set(['servers.register', 'servers.update', 'servers.drain', 'servers.set_standbys']);
  expect(new Set(told().map(({ action }) => action))).toEqual(actions);
  expect(told()).toHaveLength(4);
  for (const event of told()) {
    expect(event).toMatchObject({ orgId: '', entityType: 'server', actorKind: 'platform', userId, outcome: 'ok' });
    for (const password of [secret.provisionerPassword, secret.migratorPassword]) {
      expect(JSON.stringify(event.metadata)).not.toContain(password);
    }
  }
  expect(told().find(({ action }) => action === 'servers.drain')!.metadata).toEqual({ draining: true });
});
