import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createLogger } from '@mad/process';
import { grpcTransport } from '@mad/rpc';
import { createClient } from '@connectrpc/connect';
import { SessionService } from '@mad/proto/identity';
import { startIdentity } from '../src/index.ts';
import { ADMINISTRATOR, PASSWORD, runIdentity, type TestIdentity, type TestOrganization } from './running-identity.ts';

let mad: TestIdentity;

beforeAll(async () => {
  mad = await runIdentity();
});
afterAll(() => mad.close());

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 10_000; !condition(); await new Promise((settle) => setTimeout(settle, 10))) {
    if (Date.now() > end) throw new Error('it did not happen in 10 s');
  }
}

const login = (of: TestOrganization) => mad.as().sessions.login({ email: of.adminEmail, password: PASSWORD });

test('signing in has results open the organization’s database, once in a while', async () => {
  // Its administrator signs in while it is made.
  const acme = await mad.organization('acme');
  await until(() => mad.neighbour.warmed.includes(acme.orgId));
  await login(acme);
  await login(acme);
  const other = await mad.organization('globex');
  await until(() => mad.neighbour.warmed.includes(other.orgId));
  expect(mad.neighbour.warmed).toEqual([acme.orgId, other.orgId]);
});

test('a refused sign-in opens nothing, and neither does the platform’s administrator', async () => {
  const before = [...mad.neighbour.warmed];
  const initech = await mad.organization('initech');
  await until(() => mad.neighbour.warmed.length === before.length + 1);
  await mad
    .as()
    .sessions.login({ email: initech.adminEmail, password: 'a wrong password' })
    .catch(() => undefined);
  await mad.as().sessions.login(ADMINISTRATOR);
  expect(mad.neighbour.warmed).toEqual([...before, initech.orgId]);
});

test('a results that does not answer delays no sign-in', async () => {
  mad.neighbour.hangs = true;
  try {
    const umbrella = await mad.organization('umbrella');
    await until(() => mad.neighbour.warmed.includes(umbrella.orgId));
    const began = performance.now();
    expect((await login(umbrella)).tokens?.accessToken).toBeTruthy();
    // It is waited for two seconds in the background.
    expect(performance.now() - began).toBeLessThan(1_900);
  } finally {
    mad.neighbour.hangs = false;
  }
});

test.each([
  ['without results', { resultsAddress: '127.0.0.1:1' }],
  ['switched off', { prewarm: false }],
])('%s signing in works all the same', async (_how, change) => {
  const hooli = await mad.organization(`hooli-${Math.random().toString(36).slice(2, 8)}`);
  await until(() => mad.neighbour.warmed.includes(hooli.orgId));
  const config = { ...mad.config, ...change, port: 0 };
  const other = await startIdentity(config, { logger: createLogger('test', { level: 'silent' }) });
  const transport = grpcTransport(`127.0.0.1:${other.port}`);
  try {
    const { tokens } = await createClient(SessionService, transport).login({
      email: hooli.adminEmail,
      password: PASSWORD,
    });
    expect(tokens?.accessToken).toBeTruthy();
    await new Promise((settle) => setTimeout(settle, 200));
    // Asked for once: by the identity at which the organization was made, not by this one.
    expect(mad.neighbour.warmed.filter((one) => one === hooli.orgId)).toEqual([hooli.orgId]);
  } finally {
    transport.close();
    await other.close();
  }
});
