import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { FleetStatisticsService, StatementOrder, TenantState } from '@mad/proto/provisioner';
import { grpcTransport } from '@mad/rpc';
import { platformToken } from '@mad/testing';
import pg from 'pg';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'stats';
const TENANTS = 3;
let mad: RunningProvisioner;
let loaded: boolean;

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA });
  for (let i = 0; i < TENANTS; i += 1) await mad.tenants().ensureTenant({ orgId: uuidv7(), schema: SCHEMA });
  const { rows } = await mad.admin.query<{ libraries: string }>('SHOW shared_preload_libraries');
  loaded = JSON.stringify(rows).includes('pg_stat_statements');
});
afterAll(() => mad?.close());

async function refusal(call: Promise<unknown>): Promise<ConnectError> {
  return call.then(
    () => {
      throw new Error('was answered');
    },
    (error: unknown) => ConnectError.from(error),
  );
}

describe('slow statements', () => {
  test('of the metadata database and of each server, ranked, without values', async () => {
    const secret = `needle-${uuidv7()}`;
    await mad.rows.query(`SELECT count(*) FROM provisioner.tenants WHERE database_name = '${secret}'`);
    const { servers } = await mad.statistics().listSlowStatements({ limit: 100 });
    expect(servers.map(({ server }) => server)).toEqual(['metadata', 'local']);
    if (!loaded) {
      for (const { unavailable } of servers) expect(unavailable).toContain('shared_preload_libraries');
      return;
    }
    const [metadata] = servers;
    expect(metadata!.unavailable).toBe('');
    const mine = metadata!.statements.find(({ text }) => text.includes('WHERE database_name = $1'));
    expect(mine).toMatchObject({ calls: 1n, rows: 1n, databases: 1 });
    expect(JSON.stringify(metadata!.statements.map(({ text }) => text))).not.toContain(secret);
    const totals = metadata!.statements.map(({ totalMs }) => totalMs);
    expect(totals).toEqual(totals.toSorted((a, b) => b - a));
  });

  test('by the time of one call, as many as asked for, of one server', async () => {
    if (!loaded) return;
    const request = { server: 'metadata', order: StatementOrder.MEAN_TIME, limit: 3 };
    const { servers } = await mad.statistics().listSlowStatements(request);
    expect(servers).toHaveLength(1);
    const means = servers[0]!.statements.map(({ meanMs }) => meanMs);
    expect(means).toHaveLength(3);
    expect(means).toEqual(means.toSorted((a, b) => b - a));
  });

  test('passwords of new roles are in no text', async () => {
    if (!loaded) return;
    const { servers } = await mad.statistics().listSlowStatements({ limit: 100, order: StatementOrder.MEAN_TIME });
    expect(servers.flatMap(({ statements }) => statements.map(({ text }) => text)).join('\n')).not.toMatch(
      /SCRAM-SHA|PASSWORD '/,
    );
  });

  test('a server without the extension says how to turn it on, and the others answer', async () => {
    await mad.rows.query('DROP EXTENSION IF EXISTS pg_stat_statements');
    try {
      const { servers } = await mad.statistics().listSlowStatements({});
      expect(servers[0]).toMatchObject({ server: 'metadata', statements: [] });
      expect(servers[0]!.unavailable).toContain("shared_preload_libraries = 'pg_stat_statements'");
    } finally {
      await mad.rows.query('CREATE EXTENSION pg_stat_statements SCHEMA public');
    }
  });
});

describe('connections', () => {
  test('by database, state, program and login, beside budget and reserve', async () => {
    const other = new pg.Client({ ...clientOptions(mad.metadata.adminUrl), application_name: 'somebody/else/abc' });
    await other.connect();
    try {
      await other.query('BEGIN');
      const { servers } = await mad.statistics().listConnections({});
      const [metadata, local] = servers;
      expect(metadata).toMatchObject({ server: 'metadata', budget: 0, unavailable: '' });
      expect(local).toMatchObject({ server: 'local', budget: 20 });
      expect(metadata!.maxConnections).toBeGreaterThan(metadata!.open);
      expect(metadata!.reserved).toBeGreaterThan(0);
      expect(new Set(metadata!.groups.map(({ database }) => database))).toEqual(new Set([mad.metadata.name]));
      expect(metadata!.groups).toContainEqual(
        expect.objectContaining({ program: 'somebody', state: 'idle in transaction', login: 'postgres', count: 1 }),
      );
      expect(metadata!.open).toBe(metadata!.groups.reduce((sum, { count }) => sum + count, 0));
      expect(local!.open).toBeGreaterThanOrEqual(metadata!.open);
    } finally {
      await other.end();
    }
  });

  test('a server that is away says so, and does not hide the others', async () => {
    await mad.rows.query(
      `INSERT INTO provisioner.database_servers (name, host, port, region, connection_budget, max_tenants, provisioner_secret,
         migrator_secret, master_key_version)
       SELECT 'away', host, 1, region, connection_budget, max_tenants, provisioner_secret, migrator_secret, master_key_version
       FROM provisioner.database_servers WHERE name = 'local'`,
    );
    try {
      const { servers } = await mad.statistics().listConnections({});
      expect(servers.map(({ server, unavailable }) => [server, unavailable])).toEqual([
        ['metadata', ''],
        ['away', expect.stringMatching(/does not answer/)],
        ['local', ''],
      ]);
    } finally {
      await mad.rows.query(`DELETE FROM provisioner.database_servers WHERE name = 'away'`);
    }
  });
});

describe('sizes', () => {
  test('the largest first, page by page, each once, with whose they are', async () => {
    const statistics = mad.statistics();
    const whole = await statistics.listDatabaseSizes({ pageSize: 1000 });
    const bytes = whole.databases.map((one) => Number(one.bytes));
    expect(bytes).toEqual(bytes.toSorted((a, b) => b - a));
    expect(whole.totalBytes).toBe(whole.databases.reduce((sum, one) => sum + one.bytes, 0n));
    const own = whole.databases.filter(({ schema, orgId }) => schema === SCHEMA && orgId !== '');
    expect(own).toHaveLength(TENANTS);
    expect(own[0]!.database).toBe(`mad_${SCHEMA}_${own[0]!.orgId.replaceAll('-', '')}`);
    expect(whole.databases.filter(({ server }) => server === 'metadata')).toMatchObject([
      { database: mad.metadata.name, orgId: '' },
    ]);
    const paged = [];
    let pageToken = '';
    do {
      const page = await statistics.listDatabaseSizes({ pageSize: 2, pageToken });
      expect(page.databases.length).toBeLessThanOrEqual(2);
      paged.push(...page.databases);
      ({ nextPageToken: pageToken } = page);
    } while (pageToken !== '');
    expect(paged).toEqual(whole.databases);
  });

  test('a token of another query or a forged one is refused', async () => {
    const { nextPageToken: pageToken } = await mad.statistics().listDatabaseSizes({ pageSize: 1 });
    expect((await refusal(mad.statistics().listDatabaseSizes({ server: 'local', pageToken }))).message).toContain(
      'page_token',
    );
    expect((await refusal(mad.statistics().listDatabaseSizes({ pageToken: 'x' }))).code).toBe(Code.InvalidArgument);
  });
});

describe('the health of tenants', () => {
  test('is size, sessions, version and backups, page by page, and opens none of their databases', async () => {
    const whole = await mad.statistics().listTenantHealth({});
    expect(whole.tenants).toHaveLength(TENANTS);
    for (const one of whole.tenants) {
      expect(one).toMatchObject({
        schema: SCHEMA,
        server: 'local',
        state: TenantState.READY,
        newest: true,
        problem: '',
      });
      expect([one.sessions, one.backupTime, one.verifyTime]).toEqual([0, undefined, undefined]);
      expect(one.sizeBytes).toBeGreaterThan(1_000_000n);
    }
    const ids = whole.tenants.map(({ orgId }) => orgId);
    expect(ids).toEqual(ids.toSorted());
    const [first] = ids;
    const { operation, backup } = await mad.backups().createBackup({ orgId: first!, schema: SCHEMA });
    await mad.ended(operation);
    const { operation: verifying } = await mad.backups().verifyBackup({ backupId: backup!.backupId });
    await mad.ended(verifying);
    const { tenants: own } = await mad.statistics().listTenantHealth({ orgId: first! });
    expect(own).toMatchObject([{ orgId: first, backupTime: expect.anything(), verifyTime: expect.anything() }]);

    const paged = [];
    let pageToken = '';
    do {
      const page = await mad.statistics().listTenantHealth({ pageSize: 1, pageToken });
      paged.push(...page.tenants.map(({ orgId }) => orgId));
      ({ nextPageToken: pageToken } = page);
    } while (pageToken !== '');
    expect(paged).toEqual(ids);
    expect((await refusal(mad.statistics().listTenantHealth({ pageToken: 'x' }))).code).toBe(Code.InvalidArgument);
    expect((await refusal(mad.statistics().listTenantHealth({ orgId: 'x' }))).message).toContain('org_id');
  }, 60_000);

  test('says which server does not answer, and what else is known all the same', async () => {
    const { rows } = await mad.rows.query<{ port: number }>('SELECT port FROM provisioner.database_servers');
    await mad.rows.query('UPDATE provisioner.database_servers SET port = 1');
    try {
      const { tenants } = await mad.statistics().listTenantHealth({ pageSize: 1 });
      expect(tenants).toMatchObject([{ problem: 'the server does not answer', newest: true }]);
      expect([tenants[0]!.sizeBytes, tenants[0]!.sessions]).toEqual([undefined, undefined]);
    } finally {
      await mad.rows.query('UPDATE provisioner.database_servers SET port = $1', [rows[0]!.port]);
    }
  });
});

describe('nobody else', () => {
  test('an unknown server is NOT_FOUND', async () => {
    const errors = await Promise.all([
      refusal(mad.statistics().listConnections({ server: 'nowhere' })),
      refusal(mad.statistics().listSlowStatements({ server: 'nowhere' })),
      refusal(mad.statistics().listDatabaseSizes({ server: 'nowhere' })),
    ]);
    expect(errors.map(({ code }) => code)).toEqual([Code.NotFound, Code.NotFound, Code.NotFound]);
  });

  test('a server cannot be registered under the name of the metadata database', async () => {
    const server = {
      name: 'metadata',
      host: 'h',
      port: 1,
      region: 'local',
      provisionerPassword: 'x',
      migratorPassword: 'x',
    };
    const refused = await refusal(mad.servers().registerServer(server));
    expect([refused.code, refused.message]).toEqual([Code.InvalidArgument, expect.stringContaining('name')]);
  });

  test('without the permission the call is denied', async () => {
    const token = await platformToken({ permissions: ['platform.tenants.read'] });
    const transport = grpcTransport(mad.address);
    const client = createClient(FleetStatisticsService, transport);
    const denied = await refusal(client.listConnections({}, { headers: { authorization: `Bearer ${token}` } }));
    transport.close();
    expect(denied.code).toBe(Code.PermissionDenied);
  });
});
