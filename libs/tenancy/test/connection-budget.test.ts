import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { testCluster } from '@mad/testing';
import { clientOptions } from '@mad/postgres';
import pg from 'pg';
import { BudgetExhausted } from '../src/budget-errors.ts';
import { BudgetedPool } from '../src/budgeted-pool.ts';
import { ConnectionBudget } from '../src/connection-budget.ts';

const TENANTS = 50;
const LIMIT = 12;
const NAME = `mad-budget-${process.pid}`;

let admin: pg.Client;

beforeAll(async () => {
  admin = new pg.Client(clientOptions(testCluster().adminUrl));
  await admin.connect();
});

afterAll(async () => {
  await admin.end();
});

function opener(options: pg.ClientConfig): () => Promise<pg.PoolClient> {
  return async () => {
    const client = new pg.Client({ ...clientOptions(testCluster().adminUrl), ...options });
    await client.connect();
    return client as unknown as pg.PoolClient;
  };
}

/** Pools differ by name only: the budget does not care which database they lead to. */
function pool(budget: ConnectionBudget, name: string, max = 4, more: { checkAfterMs?: number } = {}): BudgetedPool {
  const connect = opener({ application_name: name });
  const made = new BudgetedPool({ budget, connect, max, waitMs: 5_000, checkAfterMs: more.checkAfterMs ?? 30_000 });
  made.on('error', () => undefined);
  return made;
}

async function backends(like: string): Promise<number> {
  const { rows } = await admin.query<{ n: number }>(
    'SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name LIKE $1',
    [like],
  );
  return rows[0]!.n;
}

async function use(from: BudgetedPool, ms: number, timeoutMs = 5_000): Promise<number> {
  const slot = await from.take({ timeoutMs });
  const { rows } = await slot.client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid, pg_sleep($1)', [
    ms / 1000,
  ]);
  from.giveBack(slot, false);
  return rows[0]!.pid;
}

test('what was not used for a while is told from what is', async () => {
  const budget = new ConnectionBudget({ limit: LIMIT });
  const [rested, used] = [pool(budget, `${NAME}-rested`), pool(budget, `${NAME}-used`)];
  await Promise.all([use(rested, 1), use(rested, 1), use(used, 1)]);
  await delay(60);
  await use(used, 1);
  expect([budget.idleFor(0), budget.idleFor(50), budget.idleFor(5_000)]).toEqual([3, 2, 0]);
  await Promise.all([rested.end(), used.end()]);
});

describe('the cap', () => {
  test('is never exceeded by 50 tenants under load, nobody is turned away, and everything closes', async () => {
    const budget = new ConnectionBudget({ limit: LIMIT, patienceMs: 5 });
    const pools = Array.from({ length: TENANTS }, (_, n) => pool(budget, `${NAME}-cap-${n}`));
    let most = 0;
    let samples = 0;
    let done = false;
    const watch = (async () => {
      while (!done) {
        most = Math.max(most, await backends(`${NAME}-cap-%`));
        samples += 1;
      }
    })();
    // Some tenants ask much more often than others.
    const asks = pools.flatMap((from, n) => Array.from({ length: n % 5 === 0 ? 20 : 4 }, () => use(from, 2, 20_000)));
    await Promise.all(asks);
    done = true;
    await watch;
    expect(samples).toBeGreaterThan(5);
    expect(most).toBeGreaterThan(LIMIT / 2);
    expect(most).toBeLessThanOrEqual(LIMIT);
    expect(budget.status().open).toBeLessThanOrEqual(LIMIT);
    await Promise.all(pools.map((each) => each.end()));
    expect(budget.status()).toMatchObject({ open: 0, idle: 0, waiting: 0 });
    expect(await backends(`${NAME}-cap-%`)).toBe(0);
  });

  test('per tenant holds as well', async () => {
    const budget = new ConnectionBudget({ limit: LIMIT });
    const from = pool(budget, `${NAME}-max`, 2);
    const asks = Array.from({ length: 12 }, () => use(from, 5));
    await delay(20);
    expect(from.totalCount).toBeLessThanOrEqual(2);
    const pids = new Set(await Promise.all(asks));
    expect(pids.size).toBeLessThanOrEqual(2);
    await from.end();
  });
});

describe('waiting', () => {
  test("is in order of arrival within a tenant, and tenants' turns alternate", async () => {
    const budget = new ConnectionBudget({ limit: 1, patienceMs: 0 });
    const [a, b] = [pool(budget, `${NAME}-order-a`), pool(budget, `${NAME}-order-b`)];
    const first = await a.take({ timeoutMs: 1_000 });
    const served: string[] = [];
    const ask = async (from: BudgetedPool, name: string): Promise<void> => {
      const slot = await from.take({ timeoutMs: 5_000 });
      served.push(name);
      from.giveBack(slot, false);
    };
    // The noisy one queues five times before the quiet one comes once.
    const asks = ['a1', 'a2', 'a3', 'a4', 'a5'].map((name) => ask(a, name));
    asks.push(ask(b, 'b1'));
    a.giveBack(first, false);
    await Promise.all(asks);
    expect(served.filter((name) => name.startsWith('a'))).toEqual(['a1', 'a2', 'a3', 'a4', 'a5']);
    expect(served.indexOf('b1')).toBeLessThan(2);
    await Promise.all([a.end(), b.end()]);
  });

  test('ends at the deadline, and the place in the line goes with it', async () => {
    const budget = new ConnectionBudget({ limit: 1 });
    const from = pool(budget, `${NAME}-deadline`);
    const held = await from.take({ timeoutMs: 1_000 });
    const began = performance.now();
    await expect(from.take({ timeoutMs: 60 })).rejects.toThrow(BudgetExhausted);
    expect(performance.now() - began).toBeLessThan(1_000);
    expect(from.waitingCount).toBe(0);
    from.giveBack(held, false);
    from.giveBack(await from.take({ timeoutMs: 100 }), false);
    await from.end();
  });

  test('ends when the caller gives up', async () => {
    const budget = new ConnectionBudget({ limit: 1 });
    const from = pool(budget, `${NAME}-abort`);
    const held = await from.take({ timeoutMs: 1_000 });
    const gaveUp = new AbortController();
    const waiting = from.take({ timeoutMs: 5_000, signal: gaveUp.signal });
    gaveUp.abort(new Error('gone'));
    await expect(waiting).rejects.toThrow('gone');
    from.giveBack(held, false);
    await from.end();
  });
});

describe('idle connections', () => {
  test('of the tenant that asks least give way to another tenant', async () => {
    const budget = new ConnectionBudget({ limit: 2 });
    const [a, b, c] = ['a', 'b', 'c'].map((name) => pool(budget, `${NAME}-steal-${name}`)) as [
      BudgetedPool,
      BudgetedPool,
      BudgetedPool,
    ];
    await use(a, 0);
    await use(b, 0);
    await use(a, 0);
    await use(c, 0);
    expect([a.totalCount, b.totalCount, c.totalCount]).toEqual([1, 0, 1]);
    await Promise.all([a.end(), b.end(), c.end()]);
  });

  test('are used again, and closed after their time', async () => {
    const budget = new ConnectionBudget({ limit: 2 });
    const from = pool(budget, `${NAME}-again`);
    expect(await use(from, 0)).toBe(await use(from, 0));
    budget.closeIdle(60_000);
    expect(from.totalCount).toBe(1);
    await delay(5);
    budget.closeIdle(1);
    await delay(50);
    expect(from.totalCount).toBe(0);
    await from.end();
  });

  test('that died are noticed before use', async () => {
    const budget = new ConnectionBudget({ limit: 2 });
    const from = pool(budget, `${NAME}-check`, 2, { checkAfterMs: 0 });
    const before = await use(from, 0);
    await admin.query('SELECT pg_terminate_backend($1)', [before]);
    const after = await use(from, 0);
    expect(after).not.toBe(before);
    await from.end();
  });
});

test('a failed open reaches whoever waits, and is not remembered', async () => {
  const budget = new ConnectionBudget({ limit: 2 });
  const connect = opener({ database: 'no_such_database' });
  const from = new BudgetedPool({ budget, connect, max: 2, waitMs: 1_000, checkAfterMs: 30_000 });
  await expect(from.take({ timeoutMs: 2_000 })).rejects.toMatchObject({ code: '3D000' });
  await expect(from.take({ timeoutMs: 2_000 })).rejects.toMatchObject({ code: '3D000' });
  expect(budget.status()).toMatchObject({ open: 0, waiting: 0 });
  await from.end();
});

test('a connection in use may finish after the pool has ended', async () => {
  const budget = new ConnectionBudget({ limit: 2 });
  const from = pool(budget, `${NAME}-drain`);
  const slot = await from.take({ timeoutMs: 10_000 });
  let ended = false;
  const ending = from.end().then(() => {
    ended = true;
  });
  await expect(from.take({ timeoutMs: 100 })).rejects.toThrow('has ended');
  expect(ended).toBe(false);
  from.giveBack(slot, false);
  await ending;
  expect(budget.status().open).toBe(0);
});
