import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import {
  removeEmbeddedPostgres,
  startEmbeddedPostgres,
  startStandby,
  type EmbeddedPostgres,
} from '@mad/embedded-postgres';
import { bootstrapTenantServer, defineMigration } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { TenantState, type Server } from '@mad/proto/provisioner';
import { openTenants, type Tenants } from '@mad/tenancy';
import { testCluster } from '@mad/testing';
import { silent } from './neighbours.ts';
import { connectedTo, failure, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'promoted';
const PASSWORDS = { provisionerPassword: 'only-for-this-test-p', migratorPassword: 'only-for-this-test-m' };
const SETTINGS = { fsync: 'off' };
const WRITERS = 4;

const migrations = [
  defineMigration('2026_01_05_1000_create_entries.ts', {
    up: 'CREATE TABLE promoted.entries (entry_id uuid PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())',
    down: 'DROP TABLE promoted.entries',
  }),
];

let home: string;
let mad: RunningProvisioner;
let tenants: Tenants;
let primary: EmbeddedPostgres;
let standby: EmbeddedPostgres;
let orgId: string;
let database: string;
let stopWriting: () => void = () => undefined;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'mad-failover-'));
  await chmod(home, 0o711);
  mad = await runProvisioner({ schema: SCHEMA, migrations, environment: { PROVISIONER_SERVER_SAMPLE_MS: '500' } });
  primary = await startEmbeddedPostgres({ dataDir: join(home, 'first'), settings: SETTINGS });
  await bootstrapTenantServer(primary.adminUrl, { ...PASSWORDS, schema: SCHEMA });
  await mad.servers().registerServer({
    name: 'pair',
    host: '127.0.0.1',
    port: primary.port,
    region: 'pair',
    connectionBudget: 20,
    ...PASSWORDS,
  });
  orgId = uuidv7();
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA, region: 'pair' });
  expect(tenant).toMatchObject({ state: TenantState.READY, lastError: '' });
  database = tenant!.databaseName;
  standby = await startStandby({
    primary: { dataDir: join(home, 'first'), adminUrl: primary.adminUrl },
    dataDir: join(home, 'second'),
    settings: SETTINGS,
  });
  // From now on whoever is told that it is committed finds it on the standby.
  await onPrimary(primary, async (client) => {
    await client.query(`ALTER SYSTEM SET synchronous_standby_names = '*'`);
    await client.query('SELECT pg_reload_conf()');
  });
  tenants = await openTenants({
    schema: SCHEMA,
    entities: [],
    routes: mad.transport('results'),
    node: 'failover-test',
    budget: 10,
    logger: silent,
  });
}, 180_000);

afterAll(async () => {
  stopWriting();
  await tenants?.close();
  await mad?.close();
  for (const server of [primary, standby]) await server?.stop();
  for (const folder of ['second', 'first']) await removeEmbeddedPostgres(join(home, folder));
  await rm(home, { recursive: true, force: true });
}, 60_000);

const onPrimary = <T>(
  server: EmbeddedPostgres,
  fn: Parameters<typeof connectedTo<T>>[1],
  name = 'postgres',
): Promise<T> => connectedTo(server.adminUrl.replace(/postgres$/, name), fn);

const at = (server: { port: number }) => ({ host: '127.0.0.1', port: server.port });

async function pair(): Promise<Server> {
  const { servers } = await mad.servers().listServers({});
  return servers.find(({ name }) => name === 'pair')!;
}

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let wait = 0; wait < 600; wait += 1) {
    if (await condition()) return;
    await delay(100);
  }
  throw new Error(`waited in vain until ${what}`);
}

/** Writes entries without a pause until told to stop; one that failed is tried again until it is acknowledged. */
function writeOn(): { acknowledged: string[]; stop(): Promise<void> } {
  const acknowledged: string[] = [];
  let stopped = false;
  stopWriting = () => void (stopped = true);
  const write = async (): Promise<void> => {
    while (!stopped) {
      const entryId = uuidv7();
      const insert = (): Promise<number> =>
        tenants.transact(orgId, (tx) =>
          tx.execute('INSERT INTO promoted.entries (entry_id) VALUES ($1) ON CONFLICT DO NOTHING', [entryId]),
        );
      while (
        !(await insert().then(
          () => true,
          () => false,
        ))
      )
        await delay(20);
      acknowledged.push(entryId);
    }
  };
  const writers = Promise.all(Array.from({ length: WRITERS }, write));
  return {
    acknowledged,
    async stop() {
      stopped = true;
      await writers;
    },
  };
}

test('standbys are of the server, and not it', async () => {
  const ask = async (...standbys: { host: string; port: number }[]): Promise<[Code, string]> => {
    const refused = await failure(mad.servers().setServerStandbys({ name: 'pair', standbys, check: true }));
    return [refused.code, refused.rawMessage];
  };
  const invalid = (problem: string) => [Code.InvalidArgument, problem];
  expect(await ask(at(primary))).toEqual(invalid('standbys[0]: is pair itself'));
  expect(await ask(at(standby), at(standby))).toEqual(invalid('standbys[1]: is given twice'));
  expect(await ask({ host: '127.0.0.1', port: 1 })).toEqual(
    invalid('standbys[0]: does not answer, or does not let the provisioner in'),
  );
  const { host, port } = testCluster();
  expect((await ask({ host, port }))[0]).toBe(Code.InvalidArgument);
  const nobody = mad.servers().setServerStandbys({ name: 'nobody', standbys: [] });
  expect((await failure(nobody)).code).toBe(Code.NotFound);
  const { server } = await mad.servers().setServerStandbys({ name: 'pair', standbys: [at(standby)], check: true });
  expect(server!.standbys).toMatchObject([at(standby)]);
}, 60_000);

test('a promoted standby is found under load: nothing acknowledged is lost, and who was left behind is not gone back to', async () => {
  await until('its timeline is known', async () => {
    const { rows } = await mad.rows.query(
      `SELECT FROM provisioner.database_servers WHERE name = 'pair' AND timeline = 1`,
    );
    return rows.length === 1;
  });
  const writers = writeOn();
  await until('they write', () => writers.acknowledged.length > 100);

  process.kill(primary.pid, 'SIGKILL');
  await primary.exited;
  const killed = performance.now();
  await onPrimary(standby, (client) => client.query('SELECT pg_promote()'));
  const promoted = performance.now();
  const before = writers.acknowledged.length;
  await until('they write again', () => writers.acknowledged.length > before + 100);
  const [promotion, recovery] = [promoted - killed, performance.now() - promoted].map(Math.round);
  process.stdout.write(`promoted after ${promotion} ms, 100 more entries ${recovery} ms later\n`);

  await until('it is looked at', async () => (await pair()).error === '');
  const now = await pair();
  expect(now).toMatchObject({ ...at(standby), standbys: [at(primary)] });
  expect(now.promoteTime).toBeDefined();

  // The old one comes back as the primary it believes it is; so does a provisioner that was configured for it.
  primary = await startEmbeddedPostgres({ dataDir: join(home, 'first'), port: primary.port, settings: SETTINGS });
  await onPrimary(primary, async (client) => {
    await client.query('ALTER SYSTEM RESET synchronous_standby_names');
    await client.query('SELECT pg_reload_conf()');
  });
  const count = (server: EmbeddedPostgres): Promise<number> =>
    onPrimary(
      server,
      async (client) =>
        (await client.query<{ n: number }>('SELECT count(*)::int AS n FROM promoted.entries')).rows[0]!.n,
      database,
    );
  const there = await count(primary);
  const since = writers.acknowledged.length;
  await delay(3_000);
  await until('they write on', () => writers.acknowledged.length > since + 100);
  await writers.stop();
  expect(await count(primary)).toBe(there);
  expect(await pair()).toMatchObject({ ...at(standby), error: '' });

  const kept = await onPrimary(
    standby,
    async (client) => (await client.query<{ entry_id: string }>('SELECT entry_id FROM promoted.entries')).rows,
    database,
  );
  const ids = new Set(kept.map(({ entry_id: id }) => id));
  expect(writers.acknowledged.filter((id) => !ids.has(id))).toEqual([]);
  expect(kept.length).toBe(writers.acknowledged.length);
}, 180_000);
