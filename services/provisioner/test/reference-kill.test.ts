import { setTimeout as delay } from 'node:timers/promises';
import { createClient } from '@connectrpc/connect';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { defineMigration } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { DriftService, OperationService, TenantService } from '@mad/proto/provisioner';
import { KILL_SETTINGS, platformToken, served, ServiceProcess, serviceToken, sweptClean } from '@mad/testing';
import { noteMigrations } from './neighbours.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'refkill';
/** Long enough to die in. */
const slow = defineMigration('2026_01_08_1000_slow.ts', { up: 'SELECT pg_sleep(1)', down: 'SELECT 1' });

let mad: RunningProvisioner;
let provisioner: ServiceProcess;

beforeAll(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: [...noteMigrations(SCHEMA), slow],
    idle: true,
    environment: { ...KILL_SETTINGS },
  });
  provisioner = await ServiceProcess.of('provisioner', mad.environment);
});

afterAll(async () => {
  await provisioner?.close();
  await mad?.close();
});

const references = async (): Promise<string[]> => {
  const { rows } = await mad.admin.query<{ name: string }>(
    'SELECT datname AS name FROM pg_database WHERE datname LIKE $1',
    [`mad\\_${SCHEMA}\\_reference\\_%`],
  );
  return rows.map(({ name }) => name);
};

test('kill -9 while what a version makes is being found out: the database made for it is removed, whoever asks next or not', async () => {
  provisioner.start();
  const tenants = createClient(
    TenantService,
    provisioner.as(() => serviceToken('identity')),
  );
  const platform = provisioner.as(() =>
    platformToken({ permissions: ['platform.drift.read', 'platform.operations.read'] }),
  );
  const orgId = uuidv7();
  await served(() => tenants.ensureTenant({ orgId, schema: SCHEMA }));
  const drift = createClient(DriftService, platform);
  const cut = drift.listDrift({ orgId }).catch(() => undefined);
  while ((await references()).length === 0) await delay(5);
  await provisioner.kill();
  await cut;
  const [left] = await references();
  // Noted before it was there.
  const { rows } = await mad.rows.query(
    'SELECT object_kind AS kind, object_name AS name FROM provisioner.cleanup_records',
  );
  expect(rows).toEqual([{ kind: 'database', name: left }]);

  provisioner.start();
  await sweptClean(mad.rows);
  expect(await references()).toEqual([]);

  // Asked again it is made again, found out, and nothing is left.
  const { tenants: looked } = await served(() => drift.listDrift({ orgId }));
  expect(looked).toMatchObject([{ differences: [], error: '' }]);
  expect(await references()).toEqual([]);
  await sweptClean(mad.rows);
  const { operations } = await createClient(OperationService, platform).listOperations({ kind: 'reference' });
  expect(operations.map(({ error }) => error)).toEqual(['', 'its process ended before it had']);
}, 120_000);
