import { setTimeout as delay } from 'node:timers/promises';
import { Code } from '@connectrpc/connect';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { TenantState } from '@mad/proto/provisioner';
import { reasonOf, retryAfterMsOf } from '@mad/rpc';
import { failure, openFleet, until, type Fleet } from './fleet.ts';

const SIZE = 60;

let fleet: Fleet;

beforeAll(async () => {
  fleet = await openFleet(SIZE);
}, 60_000);

afterAll(async () => {
  await fleet?.close();
}, 60_000);

afterEach(() => fleet.heal());

const org = (): string => fleet.untouched();

describe('the budget', () => {
  test('is a leased share: when its time is over, what is open may be used and nothing is opened', async () => {
    fleet.shareMs = 500;
    const tenants = await fleet.open();
    const [open, other] = [org(), org()];
    const ask = (orgId: string): Promise<unknown> =>
      tenants.read(orgId, (tx) => tx.query('SELECT 1 AS one', []), { deadlineMs: 500 });
    const limit = (): number | undefined => tenants.status().servers[0]?.limit;
    await ask(open);
    expect(limit()).toBe(20);
    fleet.away = true;
    await until(() => limit() === 1, 'the lease is over');
    expect(await ask(open)).toEqual([{ one: 1 }]);
    // The way to the other is not known either, with the provisioner away.
    await expect(ask(other)).rejects.toThrow();
    Object.assign(fleet, { away: false, shareMs: 60_000 });
    await until(() => limit() === 20, 'it is leased again');
    expect(await ask(other)).toEqual([{ one: 1 }]);
    await tenants.close();
  });

  test('holds for 50 tenants under load, and serves all of them', async () => {
    const limit = 15;
    await until(async () => (await fleet.backends()) === 0, 'the connections of earlier tests are gone');
    const tenants = await fleet.open({ budget: limit, poolMax: 4, patienceMs: 5 });
    let most = 0;
    let done = false;
    const watch = (async () => {
      while (!done) most = Math.max(most, await fleet.backends());
    })();
    const asks = fleet.orgs.flatMap((orgId, n) =>
      Array.from({ length: n % 7 === 0 ? 30 : 5 }, () =>
        tenants.read(orgId, (tx) => tx.query<{ name: string }>('SELECT current_database() AS name', []), {
          deadlineMs: 20_000,
        }),
      ).map(async (asked) => expect(await asked).toEqual([{ name: fleet.route(orgId).database }])),
    );
    await Promise.all(asks);
    done = true;
    await watch;
    expect(most).toBeGreaterThan(limit / 2);
    expect(most).toBeLessThanOrEqual(limit);
    await tenants.close();
    expect(await fleet.backends()).toBe(0);
  }, 60_000);

  test('tells who waited in vain when to come again', async () => {
    const tenants = await fleet.open({ budget: 1 });
    const [a, b] = [org(), org()];
    const release = Promise.withResolvers<void>();
    const entered = Promise.withResolvers<void>();
    const holding = tenants.read(a, async () => {
      entered.resolve();
      await release.promise;
    });
    await entered.promise;
    for (const orgId of [a, b]) {
      const refused = await failure(tenants.read(orgId, () => Promise.resolve(), { deadlineMs: 80 }));
      expect(refused).toMatchObject({ code: Code.ResourceExhausted, reason: 'CONNECTION_BUDGET_EXHAUSTED' });
      expect(retryAfterMsOf(refused.error)).toBeGreaterThan(0);
    }
    release.resolve();
    await holding;
    expect(await tenants.read(b, () => Promise.resolve('served'))).toBe('served');
    await tenants.close();
  });

  test('refuses more calls of one tenant than it may have at once, and only that tenant’s', async () => {
    const tenants = await fleet.open({ maxInFlight: 3, poolMax: 1 });
    const [a, b] = [org(), org()];
    const release = Promise.withResolvers<void>();
    const calls = Array.from({ length: 3 }, () => tenants.read(a, () => release.promise));
    expect(tenants.status().inFlight).toBe(3);
    const refused = await failure(tenants.read(a, () => Promise.resolve()));
    expect(refused).toMatchObject({ code: Code.ResourceExhausted, reason: 'CONNECTION_BUDGET_EXHAUSTED' });
    expect(retryAfterMsOf(refused.error)).toBeGreaterThan(0);
    expect(await tenants.read(b, () => Promise.resolve('served'))).toBe('served');
    release.resolve();
    await Promise.all(calls);
    expect(tenants.status().inFlight).toBe(0);
    expect(await tenants.read(a, () => Promise.resolve('served'))).toBe('served');
    await tenants.close();
  });

  test('asks a server for a sign of life without waking a tenant or keeping one awake', async () => {
    const tenants = await fleet.open({ probeMs: 20, idleMs: 400 });
    const orgId = org();
    const { database } = fleet.route(orgId);
    const lastQuery = async (): Promise<string | undefined> => {
      const { rows } = await fleet.admin.query<{ query: string }>(
        'SELECT query FROM pg_stat_activity WHERE datname = $1',
        [database],
      );
      return rows[0]?.query;
    };
    await tenants.read(orgId, (tx) => tx.query('SELECT 42', []));
    await until(async () => (await lastQuery()) === 'SELECT 1', 'the probe comes by');
    expect(tenants.status().servers).toMatchObject([{ answers: true, breaker: 'closed', open: 1 }]);
    await until(() => tenants.status().servers[0]?.open === 0, 'it is closed in spite of the probes');
    await delay(100);
    expect(await lastQuery()).toBeUndefined();
    await tenants.close();
  });

  test('keeps only so many tenants open, and never cuts a callback off', async () => {
    const tenants = await fleet.open({ maxOpen: 2 });
    const orgs = [org(), org(), org(), org()] as const;
    const release = Promise.withResolvers<void>();
    const slow = tenants.read(orgs[0], async (tx) => {
      await release.promise;
      return tx.query('SELECT 1 AS one');
    });
    for (const orgId of orgs.slice(1)) await tenants.read(orgId, (tx) => tx.query('SELECT 1'));
    expect(tenants.status().tenants).toBeLessThanOrEqual(2);
    release.resolve();
    expect(await slow).toEqual([{ one: 1 }]);
    await tenants.close();
  });

  test('opens one more while all that it may keep open are in use, and once', async () => {
    const tenants = await fleet.open({ maxOpen: 1 });
    const [held, other] = [org(), org()];
    const [begun, release] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const slow = tenants.read(held, () => {
      begun.resolve();
      return release.promise;
    });
    await begun.promise;
    try {
      await tenants.read(other, (tx) => tx.query('SELECT 1'));
      expect(tenants.status()).toMatchObject({ tenants: 1, servers: [{ waiting: 0 }] });
    } finally {
      release.resolve();
      await slow;
      await tenants.close();
    }
  });
});

describe('prewarm', () => {
  test('opens one connection, of which the first read makes use', async () => {
    const tenants = await fleet.open();
    const orgId = org();
    expect(await tenants.prewarm(orgId)).toBe(true);
    expect(tenants.status()).toMatchObject({ tenants: 1, servers: [{ open: 1, idle: 1 }] });
    const asked = fleet.asked;
    expect(await tenants.prewarm(orgId)).toBe(true);
    await tenants.read(orgId, (tx) => tx.query('SELECT 1'));
    expect(tenants.status()).toMatchObject({ tenants: 1, servers: [{ open: 1, idle: 1 }] });
    expect(fleet.asked).toBe(asked);
    await tenants.close();
  });

  test('leaves a quarter of the budget free, and takes nothing from anybody', async () => {
    const tenants = await fleet.open({ budget: 4 });
    const orgs = [org(), org(), org(), org()];
    const opened: boolean[] = [];
    for (const orgId of orgs) opened.push(await tenants.prewarm(orgId));
    expect(opened).toEqual([true, true, true, false]);
    expect(tenants.status()).toMatchObject({ tenants: 3, servers: [{ open: 3, idle: 3 }] });
    // Whoever really reads gets the last one.
    await tenants.read(orgs[3]!, (tx) => tx.query('SELECT 1'));
    expect(tenants.status()).toMatchObject({ tenants: 4, servers: [{ open: 4 }] });
    await tenants.close();
  });

  test('opens nothing without a database, and nothing of a suspended organization', async () => {
    const tenants = await fleet.open();
    expect(reasonOf(await tenants.prewarm(uuidv7()).catch((error: unknown) => error))).toBe('TENANT_NOT_PROVISIONED');
    const suspended = org();
    fleet.change(suspended, { state: TenantState.SUSPENDED });
    expect(await tenants.prewarm(suspended)).toBe(false);
    expect(tenants.status()).toMatchObject({ tenants: 0 });
    await tenants.close();
  });
});
