import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { TenantState } from '@mad/proto/provisioner';
import { noteMigrations, serveSchemaOwner } from './neighbours.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'stocked';
const [CREATE, STARS] = noteMigrations(SCHEMA);
const SETTINGS = { PROVISIONER_STOCK_SIZE: '2', PROVISIONER_STOCK_PER_MINUTE: '6000', PROVISIONER_SWEEP_MS: '100' };

let mad: RunningProvisioner;
let owner: RunningProvisioner['owner'];

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA, migrations: [CREATE!], environment: SETTINGS });
  owner = mad.owner;
});

afterAll(async () => {
  await owner?.close();
  await mad?.close();
});

async function ensure(orgId = uuidv7()): Promise<{ orgId: string; schemaVersion: string }> {
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  expect(tenant).toMatchObject({ state: TenantState.READY, lastError: '' });
  return { orgId, schemaVersion: tenant!.schemaVersion };
}

/** The clones on the server, and what the table says of them. */
async function shelf() {
  const onServer = await mad.admin.query<{ oid: number; name: string; open: boolean }>(
    `SELECT oid::int, datname AS name, datallowconn AS open FROM pg_database WHERE datname LIKE $1 ORDER BY oid`,
    [`mad\\_${SCHEMA}\\_stock\\_%`],
  );
  const noted = await mad.rows.query<{ name: string; state: string }>(
    'SELECT database_name AS name, state FROM provisioner.tenant_stock ORDER BY 1',
  );
  return { onServer: onServer.rows, noted: noted.rows };
}

async function full(size: number): Promise<Awaited<ReturnType<typeof shelf>>> {
  for (let wait = 0; wait < 500; wait += 1) {
    const now = await shelf();
    const ready = now.noted.filter(({ state }) => state === 'ready');
    if (ready.length === size && now.noted.length === size && now.onServer.length === size) {
      expect(ready.map(({ name }) => name)).toEqual(now.onServer.map(({ name }) => name).sort());
      return now;
    }
    await delay(20);
  }
  throw new Error(`the stock never was ${size}: ${JSON.stringify(await shelf())}`);
}

const oidOf = async (orgId: string): Promise<number | undefined> => {
  const { rows } = await mad.admin.query<{ oid: number }>('SELECT oid::int FROM pg_database WHERE datname = $1', [
    `mad_${SCHEMA}_${orgId.replaceAll('-', '')}`,
  ]);
  return rows[0]?.oid;
};

test('a new organization gets a clone that waited, walled in, and another takes its place', async () => {
  // The first one finds no template, so nothing waits for it.
  await ensure();
  const waiting = await full(2);
  expect(waiting.onServer.map(({ open }) => open)).toEqual([false, false]);
  const { orgId } = await ensure();
  expect(waiting.onServer.map(({ oid }) => oid)).toContain(await oidOf(orgId));
  const { rows } = await mad.admin.query<{ everybody: boolean; login: boolean }>(
    `SELECT has_database_privilege('mad_migrator', $1, 'CONNECT') AS everybody,
       has_database_privilege($2, $1, 'CONNECT') AS login`,
    [`mad_${SCHEMA}_${orgId.replaceAll('-', '')}`, `mad_${SCHEMA}_${orgId.replaceAll('-', '')}_a`],
  );
  expect(rows).toEqual([{ everybody: false, login: true }]);
  const refilled = await full(2);
  expect((await mad.servers().listServers({})).servers).toMatchObject([{ name: 'local', stock: 2 }]);
  expect(refilled.onServer.map(({ oid }) => oid)).not.toContain(await oidOf(orgId));
});

test('claims by many at once give everybody a database of their own', async () => {
  await full(2);
  const made = await Promise.all(Array.from({ length: 6 }, () => ensure()));
  const oids = await Promise.all(made.map(({ orgId }) => oidOf(orgId)));
  expect(new Set(oids).size).toBe(6);
  expect(oids).not.toContain(undefined);
  await full(2);
});

test('a new release clears the old clones away and stocks its own', async () => {
  await full(2);
  const before = (await shelf()).onServer.map(({ oid }) => oid);
  const { port } = owner;
  await owner.close();
  owner = await serveSchemaOwner(SCHEMA, [CREATE!, STARS!], port);
  // Longer than provisioner remembers the list of migrations.
  await delay(1_100);
  expect((await ensure()).schemaVersion).toBe(STARS!.migrationName);
  const after = await full(2);
  expect(after.onServer.filter(({ oid }) => before.includes(oid))).toEqual([]);
  expect((await ensure()).schemaVersion).toBe(STARS!.migrationName);
});

test('a stock that was taken away is made again no faster than so many a minute', async () => {
  await ensure();
  await full(2);
  await mad.stop();
  Object.assign(mad.environment, { PROVISIONER_STOCK_SIZE: '4', PROVISIONER_STOCK_PER_MINUTE: '60' });
  await mad.rows.query('CREATE TABLE public.made (at timestamptz NOT NULL DEFAULT clock_timestamp())');
  await mad.rows.query(`CREATE FUNCTION public.note_made() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
    'BEGIN INSERT INTO public.made DEFAULT VALUES; RETURN NEW; END'`);
  await mad.rows.query(
    'CREATE TRIGGER note_made AFTER INSERT ON provisioner.tenant_stock FOR EACH ROW EXECUTE FUNCTION public.note_made()',
  );
  const made = async (): Promise<number[]> => {
    const { rows } = await mad.rows.query<{ at: Date }>('SELECT at FROM public.made ORDER BY at');
    return rows.map(({ at }) => at.getTime());
  };
  await mad.start();
  // Organizations come in the middle of it: a look of its own after each claim would make more.
  await Promise.all([ensure(), ensure()]);
  await full(4);
  const times = await made();
  expect(times).toHaveLength(4);
  // A timer may be a moment early.
  for (const [index, at] of times.slice(1).entries()) expect(at - times[index]!).toBeGreaterThanOrEqual(990);
}, 60_000);
