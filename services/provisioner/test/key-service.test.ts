import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Code } from '@connectrpc/connect';
import { clientOptions } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { OperationState } from '@mad/proto/provisioner';
import { reasonOf } from '@mad/rpc';
import { platformToken, testCluster } from '@mad/testing';
import pg from 'pg';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';
import { TransitServer } from './transit-server.ts';

const SCHEMA = 'keyservice';

let mad: RunningProvisioner;
let vault: TransitServer;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mad-token-'));
  vault = new TransitServer();
  await vault.start();
  await writeFile(join(folder, 'token'), vault.token);
  mad = await runProvisioner({
    schema: SCHEMA,
    environment: { PROVISIONER_SWEEP_MS: '50', PROVISIONER_ROTATE_GRACE_MS: '2000' },
  });
});

afterAll(async () => {
  await mad?.close();
  await vault?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** The sealed columns by the key they are under. */
async function sealedBy(): Promise<Record<string, number>> {
  const { rows } = await mad.rows.query<{ sealed: Buffer; version: number }>(
    `SELECT wrapped_key AS sealed, master_key_version AS version FROM provisioner.data_keys UNION ALL
     SELECT provisioner_secret, master_key_version FROM provisioner.database_servers UNION ALL
     SELECT migrator_secret, master_key_version FROM provisioner.database_servers`,
  );
  const counts: Record<string, number> = {};
  for (const { sealed, version } of rows) {
    const text = sealed.toString('latin1');
    const by = text.startsWith('vault:v') ? text.slice(0, text.indexOf(':', 7)) : 'local';
    counts[by] = (counts[by] ?? 0) + 1;
    if (by !== 'local') expect(by).toBe(`vault:v${version}`);
  }
  return counts;
}

async function untilSealedBy(wanted: Record<string, number>): Promise<void> {
  for (let wait = 0; wait < 1_000; wait += 1) {
    if (JSON.stringify(await sealedBy()) === JSON.stringify(wanted)) return;
    await delay(20);
  }
  expect(await sealedBy()).toEqual(wanted);
}

/** Starts anew, with the key service before the settings' key. */
async function startWithService(): Promise<void> {
  await mad.stop();
  Object.assign(mad.environment, {
    PROVISIONER_VAULT_URL: vault.url,
    PROVISIONER_VAULT_TOKEN_PATH: join(folder, 'token'),
    PROVISIONER_VAULT_TIMEOUT_MS: '500',
  });
  await mad.start();
}

const passwordOf = async (orgId: string): Promise<string> =>
  (await mad.routes().getRoute({ orgId, schema: SCHEMA })).route!.password;

test('a key service takes over from the settings, rotates, and while it is away tenants in use stay reachable', async () => {
  const [used, idle, late] = [uuidv7(), uuidv7(), uuidv7()];
  for (const orgId of [used, idle]) await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  const before = await passwordOf(used);
  expect(await sealedBy()).toEqual({ local: 4 });
  expect((await mad.tenants('gateway').getFleetHealth({})).keyService).toBeUndefined();

  await startWithService();
  await untilSealedBy({ 'vault:v1': 4 });
  await mad.stop();
  delete mad.environment.PROVISIONER_MASTER_KEY;
  await mad.start();
  expect(await passwordOf(used)).toBe(before);

  vault.rotate();
  await untilSealedBy({ 'vault:v2': 4 });
  vault.oldest = 2;
  await mad.stop();
  await mad.start();
  expect(await passwordOf(used)).toBe(before);
  expect((await mad.tenants('gateway').getFleetHealth({})).keyService).toMatchObject({ healthy: true, error: '' });

  await vault.stop();
  expect(await passwordOf(used)).toBe(before);
  for (const call of [passwordOf(idle), mad.tenants().ensureTenant({ orgId: late, schema: SCHEMA })]) {
    const error: unknown = await call.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(reasonOf(error)).toBe('KEY_SERVICE_UNAVAILABLE');
    const rawMessage = 'the key service (Vault Transit, key mad) does not answer';
    expect(error).toMatchObject({ code: Code.Unavailable, rawMessage });
  }
  // What is there needs no key.
  expect((await mad.tenants().ensureTenant({ orgId: used, schema: SCHEMA })).tenant?.orgId).toBe(used);
  await delay(1_000);
  const { keyService, servers } = await mad.tenants('gateway').getFleetHealth({});
  expect(keyService).toMatchObject({ healthy: false, error: expect.stringContaining('key service') });
  expect(servers.map(({ healthy }) => healthy)).toEqual([true]);

  await vault.start();
  expect(await passwordOf(idle)).not.toBe('');
  await mad.tenants().ensureTenant({ orgId: late, schema: SCHEMA });
  expect(await sealedBy()).toEqual({ 'vault:v2': 5 });
}, 120_000);

test('while a key service is away passwords that were replaced end all the same, and no rotation is begun in vain', async () => {
  await startWithService();
  const orgId = uuidv7();
  await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  const { route: before } = await mad.routes().getRoute({ orgId, schema: SCHEMA });
  const login = async (): Promise<string> => {
    const { user, password, database } = before!;
    const client = new pg.Client({ ...clientOptions(testCluster().adminUrl), user, password, database });
    try {
      await client.connect();
      return 'in';
    } catch (error) {
      return (error as { code: string }).code;
    } finally {
      await client.end();
    }
  };
  const platform = mad.tenantsAs(await platformToken({ permissions: ['platform.tenants.rotate'] }));
  await platform.rotateTenantCredentials({ orgId, schema: SCHEMA, requestId: uuidv7() });
  expect(await login()).toBe('in');
  await vault.stop();
  // Passwords that have grown old meanwhile: each would have to be sealed.
  await mad.rows.query(`UPDATE provisioner.tenant_credentials SET set_at = now() - interval '60 days' WHERE active`);
  const rotations = async (): Promise<OperationState[]> =>
    (await mad.operations().listOperations({ kind: 'rotate' })).operations.map(({ state }) => state);
  for (let wait = 0; (await login()) === 'in'; wait += 1) {
    expect(wait).toBeLessThan(1_000);
    await delay(20);
  }
  expect(await login()).toBe('28P01');
  expect(await rotations()).toEqual([OperationState.SUCCEEDED]);
  await vault.start();
  for (let wait = 0; (await rotations()).length < 2; wait += 1) {
    expect(wait).toBeLessThan(1_000);
    await delay(20);
  }
  expect(await rotations()).not.toContain(OperationState.FAILED);
}, 120_000);

test('provisioner does not start on a key that can be taken out of the service, or without the service', async () => {
  await mad.stop();
  vault.traits.exportable = true;
  await expect(mad.start()).rejects.toThrow('can be taken out of it');
  vault.traits.exportable = false;
  await vault.stop();
  await expect(mad.start()).rejects.toThrow('the key service (Vault Transit, key mad) does not answer');
  await vault.start();
  await mad.start();
});
