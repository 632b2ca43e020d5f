import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { claimTasks, type Claim, type LeasedRow } from '../src/jobs/claim.ts';
import { dequeue } from '../src/jobs/enqueue.ts';
import { extendLeases, returnLeases } from '../src/jobs/leases.ts';
import { lockOrgQueue } from '../src/jobs/org-queue.ts';
import { reap } from '../src/jobs/reap.ts';
import { lockJob, takeOver } from '../src/jobs/take-over.ts';
import { TaskSignal } from '../src/jobs/task-signal.ts';
import { silent } from './neighbours.ts';
import { ANYTHING, SMALL, startQueueWorld, type QueueWorld } from './queue-world.ts';

const CLAIMERS = 12;
const LEASE_MS = 60_000;

let world: QueueWorld;

beforeAll(async () => {
  world = await startQueueWorld();
});
afterEach(async () => {
  expect(await world.miscounted()).toEqual([]);
  await world.clear();
});
afterAll(() => world.close());

const claim = (change: Partial<Claim> = {}, leaseMs = LEASE_MS) =>
  world.database.asSystem((tx) => claimTasks(tx, { ...ANYTHING, ...change }, leaseMs));

const settle = ({ org_id: orgId, job_id: jobId, task_execution_id: taskExecutionId }: LeasedRow) =>
  world.database.asSystem(async (tx) => {
    await lockOrgQueue(tx, orgId);
    await dequeue(tx, orgId, jobId, { taskExecutionId });
  });

/** How many of these each organization got. */
function servings(rows: readonly LeasedRow[]): Map<string, number> {
  const served = new Map<string, number>();
  for (const { org_id: orgId } of rows) served.set(orgId, (served.get(orgId) ?? 0) + 1);
  return served;
}

/** Claims and settles by many at once until so many were served; `n` at a time. */
async function serve(total: number, n: number): Promise<LeasedRow[]> {
  const rows: LeasedRow[] = [];
  const work = async (): Promise<void> => {
    while (rows.length < total) {
      const got = await claim({ maxTasks: n });
      rows.push(...got);
      for (const row of got) await settle(row);
    }
  };
  await Promise.all(Array.from({ length: CLAIMERS }, work));
  return rows;
}

describe('fairness', () => {
  test.each([1, 20])('of 30 organizations, one of which holds half, all get the same, %i at a time', async (n) => {
    const organizations = [];
    for (let count = 0; count < 30; count += 1) organizations.push(await world.organization());
    for (const [index, organization] of organizations.entries())
      await world.fill(organization, index === 0 ? 2_900 : 100);
    const served = [...servings(await serve(1_500, n)).values()];
    expect(served).toHaveLength(30);
    expect(Math.max(...served) / Math.min(...served)).toBeLessThanOrEqual(1.2);
  });

  test('weight counts', async () => {
    const light = await world.organization();
    const heavy = await world.organization();
    await world.admin.query('UPDATE catalog.org_queue SET weight = 3 WHERE org_id = $1', [heavy.orgId]);
    for (const organization of [light, heavy]) await world.fill(organization, 400);
    const rows: LeasedRow[] = [];
    while (rows.length < 400) rows.push(...(await claim()));
    const served = servings(rows);
    const ratio = served.get(heavy.orgId)! / served.get(light.orgId)!;
    expect(ratio).toBeGreaterThan(2.7);
    expect(ratio).toBeLessThan(3.3);
  });

  test('a newcomer neither starves the others nor is starved, with an old organization at its cap', async () => {
    const capped = await world.organization({ maxRunning: 1 });
    await world.fill(capped, 10);
    expect(await claim()).toHaveLength(1);
    const old = await world.organization();
    await world.fill(old, 1_000);
    await world.admin.query('UPDATE catalog.org_queue SET vtime = 500 WHERE org_id = $1', [old.orgId]);
    const newcomer = await world.organization();
    await world.fill(newcomer, 1_000);
    const served = servings(await serve(400, 1));
    expect(served.get(capped.orgId)).toBeUndefined();
    expect(Math.abs(served.get(newcomer.orgId)! - served.get(old.orgId)!)).toBeLessThanOrEqual(20);
  });

  test('one that leaves its cap does not catch up on what it could not have', async () => {
    const capped = await world.organization({ maxRunning: 1 });
    await world.fill(capped, 200);
    const [held] = await claim();
    const other = await world.organization();
    await world.fill(other, 600);
    await serve(200, 1);
    await settle(held!);
    const { rows } = await world.admin.query<{ org_id: string; vtime: number }>(
      'SELECT org_id, vtime FROM catalog.org_queue',
    );
    const clocks = new Map(rows.map(({ org_id: orgId, vtime }) => [orgId, vtime]));
    expect(clocks.get(capped.orgId)).toBe(clocks.get(other.orgId));
  });

  test('an organization with an old clock, as one has that used a slow engine, gets a hundred first and then its turn', async () => {
    const slow = await world.organization();
    await world.fill(slow, 1, { ...SMALL, engine: 'vina@1' });
    const fast = await world.organization();
    await world.fill(fast, 1_000);
    await world.admin.query('UPDATE catalog.org_queue SET vtime = 50000 WHERE org_id = $1', [fast.orgId]);
    await world.fill(slow, 1_000);
    const rows: LeasedRow[] = [];
    while (rows.length < 300) rows.push(...(await claim({ engines: ['rdkit@1'] })));
    expect(servings(rows).get(fast.orgId)).toBeGreaterThan(90);
    expect(servings(rows).get(slow.orgId)).toBeGreaterThan(190);
  });

  test('an organization’s own tasks go by priority, then by age', async () => {
    const organization = await world.organization();
    const [first, second] = await world.fill(organization, 2);
    const [urgent] = await world.fill(organization, 1, SMALL, 10);
    const order = [...(await claim()), ...(await claim()), ...(await claim())];
    expect(order.map(({ task_execution_id: id }) => id)).toEqual([urgent, first, second]);
  });
});

describe('a claim', () => {
  test('of 20 from one organization gets 20, and no more than there are', async () => {
    const one = await world.organization();
    await world.fill(one, 23);
    expect(await claim({ maxTasks: 20 })).toHaveLength(20);
    expect(await claim({ maxTasks: 20 })).toHaveLength(3);
    expect(await claim({ maxTasks: 20 })).toEqual([]);
  });

  test('takes from those that have more what others leave', async () => {
    const rich = await world.organization();
    await world.fill(rich, 100);
    for (let count = 0; count < 5; count += 1) await world.fill(await world.organization(), 1);
    const rows = await claim({ maxTasks: 20 });
    expect(rows).toHaveLength(20);
    expect(servings(rows).size).toBe(6);
    expect(servings(rows).get(rich.orgId)).toBe(15);
  });

  test('passes by organizations whose tasks need another engine, more cores or more memory', async () => {
    const others = [
      { engine: 'vina@1', cores: 1, memory_mb: 256 },
      { engine: 'rdkit@1', cores: 2, memory_mb: 256 },
      { engine: 'rdkit@1', cores: 1, memory_mb: 4_096 },
    ];
    for (const shape of others) await world.fill(await world.organization(), 5, shape);
    const mine = await world.organization({ vtime: 1_000 });
    await world.fill(mine, 3);
    const worker = { engines: ['rdkit@1'], freeCores: 1, freeMemoryMb: 1_024 };
    for (let count = 0; count < 3; count += 1) {
      const rows = await claim(worker);
      expect(rows.map(({ org_id: orgId }) => orgId)).toEqual([mine.orgId]);
    }
    expect(await claim(worker)).toEqual([]);
  });

  test('is bounded by the worker’s free cores and memory together', async () => {
    const organization = await world.organization();
    await world.fill(organization, 10, { engine: 'vina@1', cores: 2, memory_mb: 600 });
    expect(await claim({ maxTasks: 10, freeCores: 5, freeMemoryMb: 100_000 })).toHaveLength(2);
    expect(await claim({ maxTasks: 10, freeCores: 100, freeMemoryMb: 1_900 })).toHaveLength(3);
  });

  test('grows the attempt, and nobody else gets the task', async () => {
    const organization = await world.organization();
    await world.fill(organization, 1);
    const [first] = await claim({}, 0);
    expect([first!.attempt, await claim()]).toEqual([1, []]);
    await reap({ database: world.database, boss: world.boss, tasks: new TaskSignal(), logger: silent }, [
      'leased',
      'delayed',
    ]);
    const [second] = await claim();
    expect(second).toMatchObject({ task_execution_id: first!.task_execution_id, attempt: 2 });
  });
});

test('a cap is never exceeded by 12 claimers, and everything is served', async () => {
  // After the update, so that it sees the row that is written.
  await world.admin.query(
    `CREATE FUNCTION catalog.refuse_more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
       IF NEW.running > NEW.max_running THEN RAISE EXCEPTION 'over the cap'; END IF; RETURN NULL; END $$;
     CREATE TRIGGER refuse_more AFTER UPDATE ON catalog.org_queue FOR EACH ROW EXECUTE FUNCTION catalog.refuse_more()`,
  );
  try {
    let total = 0;
    for (const maxRunning of [1, 2, 3, 5, 8]) {
      await world.fill(await world.organization({ maxRunning }), 120);
      total += 120;
    }
    const rows = await serve(total, 4);
    expect(rows).toHaveLength(total);
    expect(new Set(rows.map(({ task_execution_id: id }) => id)).size).toBe(total);
  } finally {
    await world.admin.query('DROP TRIGGER refuse_more ON catalog.org_queue');
  }
});

test('8 s of claims, settles, heartbeats, returns, lost leases and ending jobs: no deadlock, no drift', async () => {
  const jobs: { orgId: string; jobId: string }[] = [];
  for (let count = 0; count < 6; count += 1) jobs.push(await world.organization({ maxRunning: 40 }));
  const context = { database: world.database, boss: world.boss, tasks: new TaskSignal(), logger: silent };
  const end = Date.now() + 8_000;
  const held: LeasedRow[] = [];
  let settled = 0;
  let seq = 0n;
  const until = (step: () => Promise<unknown>) => async (): Promise<void> => {
    while (Date.now() < end) await step();
  };
  const take = (): LeasedRow | undefined => held.splice(Math.floor(Math.random() * held.length), 1)[0];
  const keyOf = (row: LeasedRow) => ({
    orgId: row.org_id,
    taskExecutionId: row.task_execution_id,
    attempt: row.attempt,
  });
  const pause = () => new Promise((resolve) => setTimeout(resolve, 2));
  const settleOne = async (): Promise<void> => {
    const row = take();
    if (!row) return void (await pause());
    seq += 1n;
    const none = { requested: 1n, cached: 0n, scored: 0n, failed: 0n, skipped: 0n, cancelled: 0n, pending: 1n };
    const progress = {
      state: 'running' as const,
      counters: none,
      eventSeq: seq,
      detail: '',
      coreMs: 0n,
      savedCoreMs: 0n,
    };
    const told = { progress, runnable: [], leaving: { taskExecutionId: row.task_execution_id } };
    await world.database.asSystem(async (tx) =>
      takeOver(tx, world.boss, await lockJob(tx, row.org_id, row.job_id), told),
    );
    settled += 1;
  };
  const workers = [
    ...Array.from({ length: 4 }, () =>
      until(async () => held.push(...(await claim({ maxTasks: 5 }, Math.random() < 0.2 ? 20 : LEASE_MS)))),
    ),
    ...Array.from({ length: 5 }, () => until(settleOne)),
    until(async () => {
      const some = held.filter(() => Math.random() < 0.5);
      if (some.length === 0) return pause();
      return world.database.asSystem((tx) => extendLeases(tx, ANYTHING.worker, some.map(keyOf), LEASE_MS));
    }),
    until(async () => {
      const row = take();
      if (!row) return pause();
      return world.database.asSystem((tx) =>
        returnLeases(tx, row.org_id, 'w', [keyOf(row)], Math.random() < 0.5 ? 0 : 10),
      );
    }),
    until(() => reap(context, ['leased', 'delayed'])),
    until(async () => {
      for (const job of jobs) await world.fill(job, 60);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }),
    // A cancelled job's tasks leave all at once, among those that settle and are extended.
    until(async () => {
      await new Promise((resolve) => setTimeout(resolve, 500));
      const { orgId, jobId } = jobs[Math.floor(Math.random() * jobs.length)]!;
      await world.database.asSystem(async (tx) => {
        await lockJob(tx, orgId, jobId);
        await dequeue(tx, orgId, jobId, 'all');
      });
    }),
  ];
  await Promise.all(workers.map((work) => work()));
  expect(settled).toBeGreaterThan(200);
});
