import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createMetrics, uuidv7 } from '@mad/process';
import { openDatabase } from '@mad/postgres';
import { registerFleetMetrics } from '../src/servers/tenant-metrics.ts';
import type { ServerRow } from '../src/db/entities/server.ts';
import { parseMasterKeys } from '../src/secrets/local-keys.ts';
import { serverPassword } from '../src/secrets/server-passwords.ts';
import { silent } from './neighbours.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'masterkey';

let mad: RunningProvisioner;

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA, environment: { PROVISIONER_SWEEP_MS: '50' } });
});

afterAll(() => mad?.close());

async function versions(): Promise<Record<string, number>> {
  const database = await openDatabase({
    url: mad.environment.PROVISIONER_DATABASE_URL!,
    systemUrl: mad.environment.PROVISIONER_SYSTEM_URL!,
    schema: 'provisioner',
    entities: [],
    poolSize: 1,
    systemPoolSize: 1,
    applicationName: 'test',
    statementTimeoutMs: 10_000,
    logger: silent,
  });
  const metrics = createMetrics('test');
  registerFleetMetrics(metrics, database);
  const text = await metrics.text();
  await database.close();
  return Object.fromEntries(
    [...text.matchAll(/sealed_keys\{[^}]*master_key_version="(\d+)"[^}]*\} (\d+)/g)].map((m) => [m[1], Number(m[2])]),
  );
}

test('a changed master key takes over everything while both are configured, and the old one can be removed', async () => {
  const orgs = [uuidv7(), uuidv7()];
  for (const orgId of orgs) await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  const spare = { name: 'spare', host: '127.0.0.1', port: 1, region: 'elsewhere' };
  await mad.servers().registerServer({ ...spare, provisionerPassword: 'p', migratorPassword: 'm' });
  const passwords = async (): Promise<string[]> => {
    const found = await Promise.all(orgs.map((orgId) => mad.routes().getRoute({ orgId, schema: SCHEMA })));
    return found.map(({ route }) => route!.password);
  };
  const before = await passwords();
  expect(await versions()).toEqual({ 1: 4 });

  // A key that was tampered with is passed over, and counted on.
  const broken = uuidv7();
  await mad.rows.query(
    `INSERT INTO provisioner.data_keys (org_id, version, wrapped_key, master_key_version) VALUES ($1, 1, $2, 1)`,
    [broken, randomBytes(60)],
  );
  const [one, two] = [mad.environment.PROVISIONER_MASTER_KEY!, randomBytes(32).toString('base64')];
  await mad.stop();
  mad.environment.PROVISIONER_MASTER_KEY = `2:${two},1:${one}`;
  await mad.start();
  for (let wait = 0; wait < 500 && (await versions())[2] !== 4; wait += 1) await delay(20);
  expect(await versions()).toEqual({ 1: 1, 2: 4 });
  expect(await passwords()).toEqual(before);
  await mad.rows.query('DELETE FROM provisioner.data_keys WHERE org_id = $1', [broken]);

  await mad.stop();
  mad.environment.PROVISIONER_MASTER_KEY = `2:${two}`;
  await mad.start();
  expect(await passwords()).toEqual(before);
  const { rows } = await mad.rows.query<ServerRow>(`SELECT * FROM provisioner.database_servers WHERE name = 'spare'`);
  const master = parseMasterKeys(`2:${two}`);
  expect(await serverPassword(master, rows[0]!, 'mad_provisioner_admin')).toBe('p');
  expect(await serverPassword(master, rows[0]!, 'mad_migrator')).toBe('m');
}, 60_000);
