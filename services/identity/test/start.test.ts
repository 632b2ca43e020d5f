import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { openBoss } from '@mad/postgres';
import { createLogger } from '@mad/process';
import { metadataDatabase, testServiceKeys, type TestDatabase } from '@mad/testing';
import { ensureFirstAdministrator, readIdentityConfig } from '../src/index.ts';
import { signingKeys } from '../src/keys/signing-keys.ts';
import { keepHouse } from '../src/queue/housekeeping.ts';
import { identityQueues } from '../src/queue/queues.ts';
import { masterKey } from '../src/secrets/master-key.ts';
import { ADMINISTRATOR, eventually, OrganizationStatus, runIdentity, type TestIdentity } from './running-identity.ts';

let mad: TestIdentity;

beforeAll(async () => {
  mad = await runIdentity();
});
afterAll(() => mad.close());

const keys = () => testServiceKeys(['identity', 'catalog']);

/** The environment of a service as an operator would write it. */
async function environment(db: Pick<TestDatabase, 'url'>): Promise<Record<string, string>> {
  const service = await keys();
  return {
    IDENTITY_DATABASE_URL: db.url('mad_identity'),
    IDENTITY_SYSTEM_URL: db.url('mad_identity_system'),
    IDENTITY_MIGRATE_URL: db.url('mad_migrator'),
    IDENTITY_MASTER_KEY: randomBytes(32).toString('base64'),
    IDENTITY_SERVICE_KEY: JSON.stringify(service.private.identity),
    MAD_SERVICE_KEYS: JSON.stringify(service.public),
  };
}

test('the configuration has a default for everything that is no secret and no address of its own', async () => {
  const config = readIdentityConfig(await environment(mad.db));
  expect(config).toMatchObject({
    host: '127.0.0.1',
    port: 7001,
    provisionerAddress: '127.0.0.1:7004',
    provisioning: 'eager',
    tenantSchemas: ['results'],
    defaultRegion: 'local',
    bossUrl: mad.db.url('mad_identity'),
    database: { poolSize: 5, systemPoolSize: 2, statementTimeoutMs: 60_000, logSql: false },
  });
});

test('a wrong configuration names every problem at once and repeats no secret', async () => {
  const bad = {
    ...(await environment(mad.db)),
    IDENTITY_PORT: 'seven',
    IDENTITY_MASTER_KEY: 'dG9vIHNob3J0',
    IDENTITY_SERVICE_KEY: '{"kty":"oct","k":"hunter2"}',
    MAD_SERVICE_KEYS: JSON.stringify((await keys()).private),
    PROVISIONING: 'never',
    IDENTITY_SYSTEM_URL: '',
  };
  let message = '';
  try {
    readIdentityConfig(bad);
  } catch (error) {
    message = (error as Error).message;
  }
  for (const name of Object.keys(bad).filter((name) => !/MIGRATE|DATABASE/.test(name))) expect(message).toContain(name);
  expect(message).not.toMatch(/hunter2|dG9v/);
});

test('the first administrator is made once, and never overwritten', async () => {
  const again = { ...ADMINISTRATOR, password: 'a different password' };
  expect(await ensureFirstAdministrator(mad.database, again)).toMatchObject({ created: false });
  const { sessions } = mad.as();
  await sessions.login(ADMINISTRATOR);
  await expect(sessions.login(again)).rejects.toThrow();
  await expect(ensureFirstAdministrator(mad.database, { ...ADMINISTRATOR, password: 'short' })).rejects.toThrow('12');
});

test('with PROVISIONING=on_first_write an organization is in use at once, and has no database', async () => {
  const { orgId, status } = await mad.organization('lazy');
  expect(status).toBe(OrganizationStatus.ACTIVE);
  expect(mad.neighbour.calls.filter((call) => call.includes(orgId))).toEqual([]);
});

test('housekeeping asks again for what was given up, and deletes what has expired', async () => {
  const logger = createLogger('test', { level: 'silent' });
  const { orgId, adminId } = await mad.organization('forgotten');
  await mad.superuser.query(`UPDATE identity.organizations SET status = 'provisioning' WHERE org_id = $1`, [orgId]);
  await mad.superuser.query(
    `UPDATE identity.user_sessions SET created_at = now() - interval '40 d', expires_at = now() - interval '8 d' WHERE user_id = $1`,
    [adminId],
  );
  await mad.superuser.query(`UPDATE identity.idempotency_keys SET expires_at = now() - interval '1 s'`);
  const boss = await openBoss({ url: mad.config.bossUrl, schema: 'identity_boss', logger, queues: identityQueues });
  try {
    const work = { database: mad.database, boss, keys: signingKeys(mad.database, masterKey(mad.config.masterKey)) };
    await keepHouse(work);
  } finally {
    await boss.close();
  }
  const status = 'SELECT status FROM identity.organizations WHERE org_id = $1';
  await eventually('active', async () =>
    (await mad.superuser.query(status, [orgId])).rows[0].status === 'active' ? true : undefined,
  );
  expect(mad.neighbour.calls).toContain(`ensure results ${orgId}`);
  const left =
    'SELECT 1 FROM identity.user_sessions WHERE user_id = $1 UNION ALL SELECT 1 FROM identity.idempotency_keys';
  expect((await mad.superuser.query(left, [adminId])).rows).toEqual([]);
});

/** Runs one of the service's commands as its own process. */
function command(name: string, env: Record<string, string>) {
  const file = fileURLToPath(new URL(`../src/${name}.ts`, import.meta.url));
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', file], {
    env: { PATH: process.env['PATH'] ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const exited = once(child, 'exit').then(([code]) => code as number);
  return { child, exited, output: () => output };
}

test('as an operator runs it: migrate, make the administrator, serve, stop on SIGTERM', async () => {
  const db = await metadataDatabase({ services: [{ schema: 'identity', migrations: [] }] });
  try {
    const env = await environment(db);
    for (const times of ['first', 'second']) {
      const migrated = command('migrate', env);
      expect([times, await migrated.exited, migrated.output()]).toEqual([
        times,
        0,
        expect.stringContaining('up to date'),
      ]);
    }
    const admin = { IDENTITY_ADMIN_EMAIL: ADMINISTRATOR.email, IDENTITY_ADMIN_PASSWORD: ADMINISTRATOR.password };
    const bootstrapped = command('bootstrap', { ...env, ...admin });
    expect([await bootstrapped.exited, bootstrapped.output()]).toEqual([0, expect.stringContaining('"created":true')]);
    expect(bootstrapped.output()).not.toContain(ADMINISTRATOR.password);

    const serving = command('main', { ...env, IDENTITY_PORT: '0' });
    await eventually('serving', async () => (serving.output().includes('"started"') ? true : undefined));
    const { connect_port: port } = JSON.parse(
      serving
        .output()
        .split('\n')
        .find((line) => line.includes('connect_port'))!,
    );
    const response = await fetch(`http://127.0.0.1:${port}/mad.identity.v1.SessionService/Login`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(ADMINISTRATOR),
    });
    expect(response.status).toBe(200);
    serving.child.kill('SIGTERM');
    expect(await serving.exited).toBe(0);
    expect(serving.output()).not.toContain(ADMINISTRATOR.password);
  } finally {
    await db.drop();
  }
});

test('it refuses to serve under a login that row-level security does not bind, and exits 2 without configuration', async () => {
  const env = { ...(await environment(mad.db)), IDENTITY_PORT: '0', IDENTITY_DATABASE_URL: mad.db.adminUrl };
  const refused = command('main', env);
  expect([await refused.exited, refused.output()]).toEqual([1, expect.stringContaining('superuser')]);
  const unconfigured = command('main', {});
  expect([await unconfigured.exited, unconfigured.output()]).toEqual([
    2,
    expect.stringContaining('IDENTITY_MASTER_KEY'),
  ]);
});
