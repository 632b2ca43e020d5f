import { setTimeout as delay } from 'node:timers/promises';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Code } from '@connectrpc/connect';
import { createLeaseVerifier, publicJwkOf } from '@mad/auth';
import { uuidv7 } from '@mad/process';
import { JobState, QueueService, type JobProgressSchema, type LeasedTask } from '@mad/proto/catalog';
import { violationsOf } from '@mad/rpc';
import { userToken } from '@mad/testing';
import { errorOf } from './errors.ts';
import { ALL_PERMISSIONS } from './harness.ts';
import { eventually, startJobWorld, type JobWorld, type Lab } from './job-world.ts';

const LEASE_MS = 2_000;

let world: JobWorld;
let lab: Lab;

beforeAll(async () => {
  world = await startJobWorld({ queue: { leaseMs: LEASE_MS, reapMs: 100, reconcileAfterMs: 500 } });
});
beforeEach(async () => {
  lab = await world.lab();
});
afterAll(() => world.close());

const ROOM = { maxTasks: 10, freeCores: 8, freeMemoryMb: 8_192 };
const heldBy = ({ orgId, taskExecutionId, attempt }: LeasedTask) => ({ orgId, taskExecutionId, attempt });
const queueRow = async (taskExecutionId: string) => {
  const sql = 'SELECT state, attempt, losses FROM catalog.task_queue WHERE task_execution_id = $1';
  return (await world.catalog.admin.query<{ state: string; attempt: number; losses: number }>(sql, [taskExecutionId]))
    .rows[0];
};
const stateOf = (jobId: string, wanted: JobState) =>
  eventually(`the job is ${JobState[wanted]}`, async () => {
    const job = await lab.job(jobId);
    return job.state === wanted ? job : undefined;
  });
/** One task of a new job, leased. */
async function leased(): Promise<LeasedTask> {
  const { jobId } = await lab.submit();
  const [task] = await world.lease(jobId);
  return task!;
}

describe('a lease', () => {
  test('is proven by a token for this worker, attempt and organization, until its end', async () => {
    const task = await leased();
    const verify = createLeaseVerifier(publicJwkOf(world.catalog.config.servicePrivateJwk));
    expect(await verify(task.leaseToken)).toEqual({ ...heldBy(task), worker: 'w1' });
    const left = Number(task.leaseExpireTime!.seconds) * 1_000 - Date.now();
    expect(left).toBeLessThanOrEqual(LEASE_MS);
    await world.settle(task);
  });

  test('is waited for, and a new job ends the wait', async () => {
    const engines = await world.engines();
    const began = Date.now();
    const waiting = world.worker.leaseTasks({ worker: 'w2', engines, waitMs: 10_000, ...ROOM });
    await delay(300);
    const { jobId } = await lab.submit();
    const { tasks } = await waiting;
    expect(tasks.map((task) => task.jobId)).toEqual([jobId]);
    expect(Date.now() - began).toBeLessThan(5_000);
    await world.settle(tasks[0]!);
  });

  test('that does not come is an empty answer after the time', async () => {
    const began = Date.now();
    const { tasks } = await world.worker.leaseTasks({ worker: 'w2', engines: ['none@1'], waitMs: 300, ...ROOM });
    expect(tasks).toEqual([]);
    expect(Date.now() - began).toBeGreaterThanOrEqual(290);
  });

  test('is held by heartbeats past its time, by its own worker and attempt only', async () => {
    const task = await leased();
    const own = heldBy(task);
    const beat = (worker: string, change: Partial<typeof own> = {}) =>
      world.worker.heartbeatTasks({ worker, leases: [{ ...own, ...change }] });
    for (let count = 0; count < 4; count += 1) {
      await delay(LEASE_MS / 3);
      const { extended, stop } = await beat('w1');
      expect([extended.length, stop]).toEqual([1, []]);
      expect(extended[0]!.attempt).toBe(1);
    }
    const other = await world.lab();
    for (const answer of [
      await beat('w2'),
      await beat('w1', { attempt: 2 }),
      await beat('w1', { orgId: other.orgId }),
    ]) {
      expect(answer).toMatchObject({ extended: [], stop: [task.taskExecutionId] });
    }
    expect(await queueRow(task.taskExecutionId)).toEqual({ state: 'leased', attempt: 1, losses: 0 });
    await world.settle(task);
  });

  test('that is given back is not counted, and not leased again before its delay', async () => {
    const task = await leased();
    await world.worker.returnTasks({ worker: 'w1', leases: [heldBy(task)], delayMs: 700 });
    expect(await queueRow(task.taskExecutionId)).toEqual({ state: 'delayed', attempt: 1, losses: 0 });
    expect(await world.lease(task.jobId)).toEqual([]);
    const again = await eventually('it is leased again', async () => (await world.lease(task.jobId))[0]);
    expect(again.attempt).toBe(2);
    await world.worker.returnTasks({ worker: 'w1', leases: [heldBy(again)], delayMs: 0 });
    const [third] = await world.lease(task.jobId);
    expect(third!.attempt).toBe(3);
    expect((await queueRow(task.taskExecutionId))!.losses).toBe(0);
    await world.settle(third!);
    await stateOf(task.jobId, JobState.COMPLETED);
  });

  test('that runs out goes to another with the next attempt; three lost workers are enough', async () => {
    const task = await leased();
    for (const attempt of [2, 3]) {
      const again = await eventually('it is leased again', async () => (await world.lease(task.jobId))[0]);
      expect(again.attempt).toBe(attempt);
    }
    // What the first worker still says is nobody's word any more.
    const late = await world.worker.heartbeatTasks({ worker: 'w1', leases: [heldBy(task)] });
    expect(late.stop).toEqual([task.taskExecutionId]);
    const job = await stateOf(task.jobId, JobState.FAILED);
    expect(job.counters).toMatchObject({ failed: 3n, pending: 0n });
    expect(world.results.calls).toContain(`fail ${task.taskExecutionId} 4 WORKER_LOST`);
    expect(await queueRow(task.taskExecutionId)).toBeUndefined();
  });

  test('that runs out while nobody could extend it is still its worker’s, for a lease', async () => {
    const task = await leased();
    const { admin } = world.catalog;
    await admin.query('BEGIN');
    await admin.query('LOCK TABLE catalog.task_queue IN ACCESS EXCLUSIVE MODE');
    await delay(LEASE_MS + 500);
    await admin.query('COMMIT');
    // Several rounds find it run out.
    await delay(500);
    const beat = await world.worker.heartbeatTasks({ worker: 'w1', leases: [heldBy(task)] });
    expect(beat).toMatchObject({ extended: [{ attempt: 1 }], stop: [] });
    expect(await queueRow(task.taskExecutionId)).toEqual({ state: 'leased', attempt: 1, losses: 0 });
    // Who says nothing then is lost after all.
    const again = await eventually('it is leased again', async () => (await world.lease(task.jobId))[0]);
    expect(again.attempt).toBe(2);
    await world.settle(again);
  });
});

describe('settling', () => {
  test('twice, and late ones out of order, change nothing', async () => {
    const { queue } = world.results.catalog(world.catalog.running.port);
    const task = await leased();
    const { orgId, jobId, taskExecutionId } = task;
    const before = world.results.progress(jobId);
    expect(await world.settle(task)).toBe(true);
    const after = world.results.progress(jobId);
    const runnable = [{ taskExecutionId, engine: task.engine, cores: 1, memoryMb: 256 }];
    for (const progress of [after, before, { ...before, eventSeq: 99n, state: JobState.RUNNING }]) {
      expect(await queue.settleTask({ orgId, taskExecutionId, progress, runnable })).toMatchObject({ applied: false });
    }
    expect(await lab.job(jobId)).toMatchObject({ state: JobState.COMPLETED, eventSeq: 2n });
    expect(await queueRow(taskExecutionId)).toBeUndefined();
  });

  test('queues what became runnable, once', async () => {
    const { queue } = world.results.catalog(world.catalog.running.port);
    const task = await leased();
    const { orgId, jobId, taskExecutionId } = task;
    const next = { taskExecutionId: uuidv7(), engine: task.engine, cores: 2, memoryMb: 512 };
    world.results.runs.get(jobId)!.open.set(next.taskExecutionId, 0);
    const progress = world.results.finish(jobId, taskExecutionId);
    for (let count = 0; count < 2; count += 1) {
      await queue.settleTask({ orgId, taskExecutionId, progress, runnable: [next, next] });
    }
    const [second, ...others] = await world.lease(jobId);
    expect([second, others]).toMatchObject([{ ...next, attempt: 1 }, []]);
    await world.settle(second!);
    await stateOf(jobId, JobState.COMPLETED);
  });

  const wrong: [string, { counters?: object; state?: JobState; jobId?: string }, string][] = [
    ['counters that do not add up', { counters: { requested: 3n, scored: 1n } }, 'progress.counters'],
    ['a negative count', { counters: { requested: 0n, scored: -1n, failed: 1n } }, 'progress.counters'],
    ['no state', { state: JobState.UNSPECIFIED }, 'progress.state'],
    ['a job id that is none', { jobId: "'; --" }, 'progress.job_id'],
  ];
  test.each(wrong)('with %s is refused', async (_what, change, field) => {
    const { queue } = world.results.catalog(world.catalog.running.port);
    const task = await leased();
    const progress: MessageInitShape<typeof JobProgressSchema> = Object.assign(
      world.results.progress(task.jobId),
      change,
    );
    const error = await errorOf(queue.settleTask({ ...heldBy(task), progress }));
    expect([error.code, violationsOf(error)[0]!.field]).toEqual([Code.InvalidArgument, field]);
    expect((await queueRow(task.taskExecutionId))!.state).toBe('leased');
    await world.settle(task);
  });
});

describe('what nobody told', () => {
  test('is asked for: a settle that was lost', async () => {
    const task = await leased();
    await world.worker.returnTasks({ worker: 'w1', leases: [heldBy(task)], delayMs: 600_000 });
    world.results.finish(task.jobId, task.taskExecutionId);
    await stateOf(task.jobId, JobState.COMPLETED);
    expect(await queueRow(task.taskExecutionId)).toBeUndefined();
  });

  test('is put right: a task that should be queued and is not, one that is and should not be', async () => {
    const task = await leased();
    const { orgId, jobId, taskExecutionId } = task;
    const run = world.results.runs.get(jobId)!;
    const other = uuidv7();
    run.open.set(other, 1);
    run.total += 1;
    await world.worker.returnTasks({ worker: 'w1', leases: [heldBy(task)], delayMs: 600_000 });
    run.open.delete(taskExecutionId);
    run.scored += 3;
    await eventually('the queue is what results says', async () => {
      const sql = 'SELECT task_execution_id AS id FROM catalog.task_queue WHERE org_id = $1';
      const { rows } = await world.catalog.admin.query<{ id: string }>(sql, [orgId]);
      return rows.length === 1 && rows[0]!.id === other ? true : undefined;
    });
    const [left] = await world.lease(jobId);
    await world.settle(left!);
    await stateOf(jobId, JobState.COMPLETED);
  });
});

test('only workers lease, only results settles', async () => {
  const engines = await world.engines();
  const user = world.catalog.as(QueueService, await userToken({ orgId: lab.orgId, permissions: ALL_PERMISSIONS }));
  const results = await world.catalog.service(QueueService, 'results');
  expect((await errorOf(user.leaseTasks({ worker: 'w', engines, ...ROOM }))).code).toBe(Code.Unauthenticated);
  expect((await errorOf(results.leaseTasks({ worker: 'w', engines, ...ROOM }))).code).toBe(Code.PermissionDenied);
  const settling = world.worker.settleTask({ orgId: lab.orgId, taskExecutionId: uuidv7() });
  expect((await errorOf(settling)).code).toBe(Code.PermissionDenied);
});
