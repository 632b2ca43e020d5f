import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions } from '@mad/postgres';
import { HOUR_MS, uuidv7 } from '@mad/process';
import { TenantState, type Route } from '@mad/proto/provisioner';
import { reasonOf, violationsOf } from '@mad/rpc';
import { badTokens, platformToken, serviceToken, testCluster, userToken } from '@mad/testing';
import pg from 'pg';
import { noteMigrations } from './neighbours.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'tsa';
let mad: RunningProvisioner;

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA });
});

afterAll(async () => {
  await mad?.close();
});

const bare = (orgId: string): string => orgId.replaceAll('-', '');

async function ensure(orgId = uuidv7()): Promise<string> {
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  expect(tenant).toMatchObject({ state: TenantState.READY, lastError: '' });
  return orgId;
}

async function routeOf(orgId: string): Promise<Route> {
  const { route } = await mad.routes().getRoute({ orgId, schema: SCHEMA });
  return route!;
}

async function login(route: Route, database = route.database): Promise<pg.Client> {
  const { host, port, user, password } = route;
  const client = new pg.Client({ host, port, user, password, database });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

async function failure(promise: Promise<unknown>): Promise<{ code: Code; reason: string | undefined; error: Error }> {
  try {
    await promise;
  } catch (error) {
    return { code: (error as { code: Code }).code, reason: reasonOf(error), error: error as Error };
  }
  throw new Error('it was expected to fail');
}

test('catalog reads the tenants of one organization with their sizes, and nobody else does', async () => {
  const orgId = await ensure();
  await ensure();
  const { tenants } = await mad.tenants('catalog').describeTenants({ orgId });
  expect(tenants).toMatchObject([{ tenant: { orgId, schema: SCHEMA, state: TenantState.READY } }]);
  expect(tenants[0]!.sizeBytes).toBeGreaterThan(1_000_000n);
  expect((await mad.tenants('catalog').describeTenants({ orgId: uuidv7() })).tenants).toEqual([]);
  expect((await failure(mad.tenants('identity').describeTenants({ orgId }))).code).toBe(Code.PermissionDenied);

  // A server that is gone leaves the size out, not the tenant.
  const { rows } = await mad.rows.query<{ port: number }>('SELECT port FROM provisioner.database_servers');
  await mad.rows.query('UPDATE provisioner.database_servers SET port = 1');
  try {
    const [alone] = (await mad.tenants('catalog').describeTenants({ orgId })).tenants;
    expect(alone).toMatchObject({ tenant: { orgId, state: TenantState.READY } });
    expect(alone!.sizeBytes).toBeUndefined();
  } finally {
    await mad.rows.query('UPDATE provisioner.database_servers SET port = $1', [rows[0]!.port]);
  }
});

describe('EnsureTenant', () => {
  test('makes a database, walled in, with two logins; a repeat changes nothing', async () => {
    const orgId = uuidv7();
    const first = (await mad.tenants().ensureTenant({ orgId, schema: SCHEMA })).tenant!;
    expect(first).toMatchObject({
      orgId,
      schema: SCHEMA,
      state: TenantState.READY,
      step: '',
      databaseName: `mad_${SCHEMA}_${bare(orgId)}`,
      schemaVersion: noteMigrations(SCHEMA).at(-1)!.migrationName,
    });
    expect(first.provisionMs).toBeGreaterThan(0n);
    const again = (await mad.tenants('catalog').ensureTenant({ orgId, schema: SCHEMA })).tenant!;
    expect(again).toEqual(first);

    const route = await routeOf(orgId);
    const client = await login(route);
    await client.query(`INSERT INTO ${SCHEMA}.notes (body) VALUES ('hello')`);
    const { rows } = await client.query<{ stars: string }>(`SELECT ${SCHEMA}.star_count() AS stars`);
    expect(rows).toEqual([{ stars: '0' }]);
    await expect(client.query(`CREATE TABLE ${SCHEMA}.mine (x int)`)).rejects.toMatchObject({ code: '42501' });
    await expect(client.query('CREATE TABLE public.mine (x int)')).rejects.toMatchObject({ code: '42501' });
    await client.end();
  });

  test('asked for by many at once makes one', async () => {
    const orgId = uuidv7();
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => mad.tenants().ensureTenant({ orgId, schema: SCHEMA })),
    );
    expect(new Set(answers.map(({ tenant }) => tenant!.state))).toEqual(new Set([TenantState.READY]));
    const { rows } = await mad.rows.query<{ n: string }>(
      'SELECT count(*) AS n FROM provisioner.operations WHERE org_id = $1',
      [orgId],
    );
    expect(Number(rows[0]!.n)).toBe(1);
  });

  test('of many organizations at once makes all of them', async () => {
    const orgs = await Promise.all(Array.from({ length: 10 }, () => ensure()));
    const { databases, roles } = await mad.objects();
    for (const orgId of orgs) {
      const name = `mad_${SCHEMA}_${bare(orgId)}`;
      expect(databases).toContain(name);
      expect(roles).toEqual(expect.arrayContaining([`${name}_a`, `${name}_b`]));
    }
    const left = await mad.rows.query('SELECT FROM provisioner.cleanup_records');
    expect(left.rowCount).toBe(0);
  });

  test('refuses an unknown schema, a malformed organization and a region without server', async () => {
    const unknown = await failure(mad.tenants().ensureTenant({ orgId: uuidv7(), schema: 'unheard_of' }));
    expect(unknown.code).toBe(Code.InvalidArgument);
    expect(violationsOf(unknown.error).map(({ field }) => field)).toEqual(['schema']);
    const malformed = await failure(mad.tenants().ensureTenant({ orgId: "' OR 1=1 --", schema: SCHEMA }));
    expect(violationsOf(malformed.error).map(({ field }) => field)).toEqual(['org_id']);
    const sql = await failure(mad.tenants().ensureTenant({ orgId: uuidv7(), schema: SCHEMA, region: "x'; DROP" }));
    expect(violationsOf(sql.error).map(({ field }) => field)).toEqual(['region']);
    const orgId = uuidv7();
    const nowhere = await failure(mad.tenants().ensureTenant({ orgId, schema: SCHEMA, region: 'mars-1' }));
    expect(nowhere).toMatchObject({ code: Code.FailedPrecondition, reason: 'NO_SERVER_AVAILABLE' });
    expect(nowhere.error.message).toContain('mars-1');
    expect((await mad.rows.query('SELECT FROM provisioner.tenants WHERE org_id = $1', [orgId])).rowCount).toBe(0);
  });

  test('leaves a tombstone alone', async () => {
    const orgId = await ensure();
    await mad.rows.query(`UPDATE provisioner.tenants SET state = 'erased' WHERE org_id = $1`, [orgId]);
    const refused = await failure(mad.tenants().ensureTenant({ orgId, schema: SCHEMA }));
    expect(refused).toMatchObject({ code: Code.FailedPrecondition, reason: 'STATE_CONFLICT' });
    const { rows } = await mad.rows.query('SELECT state FROM provisioner.tenants WHERE org_id = $1', [orgId]);
    expect(rows).toEqual([{ state: 'erased' }]);
    expect((await routeOf(orgId)).password).toBe('');
  });

  test('tells identity what was done, once', async () => {
    const orgId = await ensure();
    for (let wait = 0; wait < 100 && !mad.events.some((event) => event.orgId === orgId); wait += 1) await delay(50);
    const events = mad.events.filter((event) => event.orgId === orgId);
    expect(events).toMatchObject([
      { action: 'tenants.provision', entityType: 'tenant', entityId: SCHEMA, outcome: 'ok', actorKind: 'service' },
    ]);
  });
});

describe('the wall', () => {
  test('keeps every tenant out of every other database of the server', async () => {
    const [a, b] = await Promise.all([ensure(), ensure()]);
    const [routeA, routeB] = await Promise.all([routeOf(a), routeOf(b)]);
    for (const database of [routeB.database, 'postgres', 'template1', mad.metadata.name]) {
      await expect(login(routeA, database)).rejects.toMatchObject({ code: '42501' });
    }
    const template = await mad.admin.query<{ name: string; open: boolean }>(
      `SELECT datname AS name, datallowconn AS open FROM pg_database WHERE datname LIKE $1`,
      [`mad\\_${SCHEMA}\\_template\\_%`],
    );
    expect(template.rows).toEqual([{ name: expect.any(String), open: false }]);
    const migrator = testCluster().url('mad_migrator', routeA.database);
    await expect(new pg.Client(clientOptions(migrator)).connect()).rejects.toMatchObject({ code: '42501' });
  });

  test('no password is kept in clear, and a row moved to another login does not open', async () => {
    const [a, b] = await Promise.all([ensure(), ensure()]);
    const { password } = await routeOf(a);
    const { rows } = await mad.rows.query<{ line: string }>(
      `SELECT t::text AS line FROM provisioner.tenant_credentials t
       UNION ALL SELECT s::text FROM provisioner.database_servers s`,
    );
    const hex = Buffer.from(password).toString('hex');
    for (const { line } of rows) expect(line.includes(password) || line.includes(hex)).toBe(false);
    await mad.rows.query(
      `UPDATE provisioner.tenant_credentials t SET secret = o.secret FROM provisioner.tenant_credentials o
       WHERE t.org_id = $1 AND o.org_id = $2 AND t.slot = 'a' AND o.slot = 'a'`,
      [b, a],
    );
    expect((await failure(routeOf(b))).code).toBe(Code.Internal);
  });
});

describe('SuspendTenants and ResumeTenants', () => {
  test('end open sessions within a second, keep new ones out, and let them in again', async () => {
    const orgId = await ensure();
    const before = await routeOf(orgId);
    const session = await login(before);
    const began = performance.now();
    const suspended = (await mad.tenants().suspendTenants({ orgId })).tenants;
    expect(performance.now() - began).toBeLessThan(1_000);
    expect(suspended).toMatchObject([{ state: TenantState.SUSPENDED, step: '', generation: before.generation + 1n }]);
    await expect(session.query('SELECT 1')).rejects.toThrow();
    await expect(login(before)).rejects.toMatchObject({ code: '42501' });
    const shut = await routeOf(orgId);
    expect(shut).toMatchObject({ state: TenantState.SUSPENDED, host: '', user: '', password: '' });
    expect((await mad.tenants().suspendTenants({ orgId })).tenants).toEqual(suspended);

    const resumed = (await mad.tenants().resumeTenants({ orgId })).tenants;
    expect(resumed).toMatchObject([{ state: TenantState.READY, generation: before.generation + 2n }]);
    await (await login(await routeOf(orgId))).end();
    expect((await mad.tenants().resumeTenants({ orgId })).tenants).toEqual(resumed);
  });

  test('of an organization without tenants do nothing', async () => {
    const orgId = uuidv7();
    expect((await mad.tenants().suspendTenants({ orgId })).tenants).toEqual([]);
    expect((await mad.tenants().resumeTenants({ orgId })).tenants).toEqual([]);
  });
});

describe('who may call', () => {
  test('GetTenant answers for the organization of the token only', async () => {
    const [mine, other] = await Promise.all([ensure(), ensure()]);
    const token = await userToken({ orgId: mine, permissions: ['tenants.read'] });
    const { tenant } = await mad.tenantsAs(token).getTenant({ orgId: mine, schema: SCHEMA });
    expect(tenant).toMatchObject({ orgId: mine, state: TenantState.READY });
    const foreign = await failure(mad.tenantsAs(token).getTenant({ orgId: other, schema: SCHEMA }));
    expect(foreign).toMatchObject({ code: Code.NotFound, reason: 'ORGANIZATION_NOT_FOUND' });
    const none = await failure(mad.tenantsAs(token).getTenant({ orgId: mine, schema: 'other' }));
    expect(none.code).toBe(Code.NotFound);
    const lesser = await userToken({ orgId: mine, permissions: ['jobs.read'] });
    expect((await failure(mad.tenantsAs(lesser).getTenant({ orgId: mine, schema: SCHEMA }))).code).toBe(
      Code.PermissionDenied,
    );
    for (const bad of Object.values(await badTokens({ orgId: mine, permissions: ['tenants.read'] }))) {
      const refused = await failure(mad.tenantsAs(bad).getTenant({ orgId: mine, schema: SCHEMA }));
      expect(refused.code).toBe(Code.Unauthenticated);
    }
    const service = await failure(
      mad.tenantsAs(await serviceToken('identity')).getTenant({ orgId: mine, schema: SCHEMA }),
    );
    expect(service.code).toBe(Code.Unauthenticated);
  });

  test('services call what names them, users none of it', async () => {
    const orgId = uuidv7();
    const results = await failure(mad.tenants('results').ensureTenant({ orgId, schema: SCHEMA }));
    expect(results).toMatchObject({ code: Code.PermissionDenied, reason: 'CALLER_NOT_ALLOWED' });
    const catalog = await failure(mad.routes('catalog').getRoute({ orgId, schema: SCHEMA }));
    expect(catalog).toMatchObject({ code: Code.PermissionDenied, reason: 'CALLER_NOT_ALLOWED' });
    const user = await userToken({ orgId, permissions: ['tenants.read'] });
    expect((await failure(mad.tenantsAs(user).ensureTenant({ orgId, schema: SCHEMA }))).code).toBe(
      Code.Unauthenticated,
    );
  });
});

describe('ListTenants', () => {
  test('pages through all, by state and organization, newest first; a token of another query is refused', async () => {
    const made = [await ensure(), await ensure(), await ensure()];
    const client = mad.tenantsAs(await platformToken({ permissions: ['platform.tenants.read'] }));
    const seen: string[] = [];
    let pageToken = '';
    do {
      const page = await client.listTenants({ pageSize: 2, pageToken, state: TenantState.READY });
      expect(page.tenants.length).toBeLessThanOrEqual(2);
      seen.push(...page.tenants.map(({ orgId }) => orgId));
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen.filter((orgId) => made.includes(orgId))).toEqual(made.toReversed());
    const one = await client.listTenants({ orgId: made[0] });
    expect(one.tenants).toHaveLength(1);

    const first = await client.listTenants({ pageSize: 1 });
    const reused = await failure(client.listTenants({ pageSize: 1, pageToken: first.nextPageToken, orgId: made[0] }));
    expect(violationsOf(reused.error).map(({ field }) => field)).toEqual(['page_token']);
    const wrong = await failure(client.listTenants({ orgId: 'x; DROP TABLE' }));
    expect(violationsOf(wrong.error).map(({ field }) => field)).toEqual(['org_id']);
  });
});

describe('GetFleetHealth', () => {
  test('probes every server and counts tenants by state; a dead server is reported, not waited for', async () => {
    await ensure();
    await mad.servers().registerServer({
      name: 'dead',
      host: '127.0.0.1',
      port: 1,
      region: 'nowhere',
      provisionerPassword: 'x',
      migratorPassword: 'x',
    });
    await delay(1_100);
    const began = performance.now();
    const health = await mad.tenants('gateway').getFleetHealth({});
    expect(performance.now() - began).toBeLessThan(3_000);
    expect(health.servers).toMatchObject([
      { name: 'dead', healthy: false, error: 'the server does not answer' },
      { name: 'local', healthy: true, error: '' },
    ]);
    expect(health.tenantsByState['READY']).toBeGreaterThan(0n);
    expect(health.metadataLatencyMs).toBeGreaterThan(0);
  });

  test('tells when the metadata was archived, by whomever, and when that is longer ago than the clock has it', async () => {
    const stands = async () => {
      // It is asked for anew.
      await mad.stop();
      await mad.start();
      return (await mad.tenants('gateway').getFleetHealth({})).metadataBackup!;
    };
    const archivedAt = async (hoursAgo: number): Promise<Date> => {
      const at = new Date(Math.floor(Date.now() / 1_000) * 1_000 - hoursAgo * HOUR_MS);
      const name = `${at.toISOString().replace(/[-:]|\.\d+/g, '')}-${uuidv7()}`;
      await mkdir(join(mad.objectsFolder, 'metadata'), { recursive: true });
      await writeFile(join(mad.objectsFolder, 'metadata', name), '');
      return at;
    };
    const none = await stands();
    expect([none.backupTime, none.overdue, none.error]).toEqual([undefined, false, '']);
    const old = await archivedAt(27);
    const late = await stands();
    expect([timestampDate(late.backupTime!), late.overdue]).toEqual([old, true]);
    const recent = await archivedAt(25);
    const soon = await stands();
    expect([timestampDate(soon.backupTime!), soon.overdue]).toEqual([recent, false]);
    await rm(join(mad.objectsFolder, 'metadata'), { recursive: true });
    await writeFile(join(mad.objectsFolder, 'metadata'), 'in the way');
    const unknown = await stands();
    expect([unknown.backupTime, unknown.error]).toEqual([undefined, 'the object store does not answer']);
    await rm(join(mad.objectsFolder, 'metadata'));
  });
});

describe('ServerService', () => {
  test('registers by name, lists by name, and shows no password', async () => {
    const servers = mad.servers();
    const request = { name: 'spare', host: '127.0.0.1', port: 2, region: 'nowhere', sslmode: 'verify-full' };
    const passwords = { provisionerPassword: 'p', migratorPassword: 'm' };
    const first = (await servers.registerServer({ ...request, ...passwords })).server!;
    expect(first).toMatchObject({ ...request, connectionBudget: 80, maxTenants: 10_000, tenants: 0, draining: false });
    const again = (await servers.registerServer({ ...request, ...passwords, port: 3 })).server!;
    expect(again).toMatchObject({ serverId: first.serverId, port: 3 });
    const names: string[] = [];
    let pageToken = '';
    do {
      const page = await servers.listServers({ pageSize: 1, pageToken });
      names.push(...page.servers.map(({ name }) => name));
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    expect(names).toEqual([...names].sort());
    expect(names).toEqual(expect.arrayContaining(['local', 'spare']));
    const bad = await failure(servers.registerServer({ ...request, ...passwords, name: "x'; --", sslmode: 'maybe' }));
    expect(violationsOf(bad.error).map(({ field }) => field)).toEqual(['name', 'sslmode']);
  });
});
