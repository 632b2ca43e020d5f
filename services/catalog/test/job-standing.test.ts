import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Code } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import { JobState, JobWaitReason, TenantAvailability } from '@mad/proto/catalog';
import { reasonOf } from '@mad/rpc';
import { openCatalogDatabase } from '../src/index.ts';
import { before, jobWaitMs, taskWaitMs } from '../src/domain/waiting.ts';
import { errorOf } from './errors.ts';
import { startJobWorld, type JobWorld, type Lab } from './job-world.ts';
import { fault } from './results-neighbour.ts';

let world: JobWorld;
let lab: Lab;

beforeAll(async () => {
  world = await startJobWorld();
});
beforeEach(async () => {
  lab = await world.lab();
});
afterAll(() => world.close());

const get = (one: Lab, jobId: string) => one.jobs.getJob({ orgId: one.orgId, jobId });

describe('GetJob joined with the tenant', () => {
  test('answers the light record and what the tenant has of the job', async () => {
    const made = await lab.submit();
    const [task] = await world.lease(made.jobId);
    await world.settle(task!);
    const { job, tenant, waiting } = await get(lab, made.jobId);
    expect(job).toMatchObject({ jobId: made.jobId, state: JobState.COMPLETED, counters: { scored: 3n } });
    expect(tenant).toMatchObject({
      availability: TenantAvailability.AVAILABLE,
      reason: '',
      detail: '',
      state: JobState.COMPLETED,
      counters: { requested: 3n, scored: 3n, pending: 0n },
      eventSeq: job!.eventSeq,
      inputSignature: 'a'.repeat(64),
      tasks: [{ taskId: 'rank', task: 'rdkit.similarity', scoreUnits: 'tanimoto' }],
    });
    expect(waiting).toBeUndefined();
  });

  test('shows the tenant ahead of the light record until that is settled', async () => {
    const made = await lab.submit();
    const [task] = await world.lease(made.jobId);
    world.results.finish(made.jobId, task!.taskExecutionId);
    const { job, tenant } = await get(lab, made.jobId);
    expect([job!.state, tenant!.state]).toEqual([JobState.QUEUED, JobState.COMPLETED]);
  });

  const refusals: [string, Parameters<typeof fault>, TenantAvailability, string][] = [
    ['suspended', [Code.FailedPrecondition, 'TENANT_SUSPENDED'], TenantAvailability.SUSPENDED, 'TENANT_SUSPENDED'],
    [
      'not made yet',
      [Code.FailedPrecondition, 'TENANT_NOT_PROVISIONED'],
      TenantAvailability.NOT_PROVISIONED,
      'TENANT_NOT_PROVISIONED',
    ],
    [
      'impossible to make',
      [Code.FailedPrecondition, 'PROVISIONING_FAILED'],
      TenantAvailability.NOT_PROVISIONED,
      'PROVISIONING_FAILED',
    ],
    ['down', [Code.Unavailable, 'DATABASE_UNAVAILABLE'], TenantAvailability.UNAVAILABLE, 'DATABASE_UNAVAILABLE'],
    [
      'too busy',
      [Code.ResourceExhausted, 'CONNECTION_BUDGET_EXHAUSTED'],
      TenantAvailability.UNAVAILABLE,
      'CONNECTION_BUDGET_EXHAUSTED',
    ],
    ['moving', [Code.Aborted, 'TENANT_MOVED'], TenantAvailability.UNAVAILABLE, 'TENANT_MOVED'],
    ['behind a service with a defect', [Code.Internal], TenantAvailability.UNAVAILABLE, 'SERVICE_UNAVAILABLE'],
  ];
  test.each(refusals)(
    'answers the light record when the database is %s, and says so',
    async (_what, how, availability, reason) => {
      const made = await lab.submit();
      world.results.faults.set('describe', { error: fault(...how), times: 1 });
      const { job, tenant } = await get(lab, made.jobId);
      expect(job).toMatchObject({ jobId: made.jobId, counters: { requested: 3n } });
      expect(tenant).toMatchObject({ availability, reason, state: JobState.UNSPECIFIED });
      expect(tenant!.detail).not.toBe('');
      expect(tenant!.counters).toBeUndefined();
      // The next reader is answered in full: nothing is remembered of the failure.
      expect((await get(lab, made.jobId)).tenant!.availability).toBe(TenantAvailability.AVAILABLE);
    },
  );

  test('does not wait for a database that hangs', async () => {
    const made = await lab.submit();
    world.results.hangs = true;
    try {
      const began = performance.now();
      const { job, tenant } = await get(lab, made.jobId);
      expect(performance.now() - began).toBeLessThan(5_000);
      expect(job!.jobId).toBe(made.jobId);
      expect(tenant).toMatchObject({ availability: TenantAvailability.UNAVAILABLE, reason: 'SERVICE_UNAVAILABLE' });
      expect(tenant!.detail).toBe("the organization's database did not answer in time");
    } finally {
      world.results.hangs = false;
    }
  });

  test('says of a job that its tenant does not hold yet just that, and asks nobody about one that has not begun', async () => {
    const small = await world.lab({ maxConcurrentJobs: 1 });
    const first = await small.submit();
    world.results.runs.delete(first.jobId);
    const missing = await get(small, first.jobId);
    expect(missing.tenant).toMatchObject({ availability: TenantAvailability.NOT_MATERIALIZED, reason: '' });

    const second = await small.submit();
    const { tenant } = await get(small, second.jobId);
    expect(tenant).toMatchObject({
      availability: TenantAvailability.NOT_MATERIALIZED,
      detail: 'the job has not begun',
    });
    expect(world.results.calls).not.toContain(`describe ${second.jobId}`);
  });

  test('is NOT_FOUND for a job of another organization, whatever the tenant says', async () => {
    const made = await lab.submit();
    const other = await world.lab();
    const error = await errorOf(get(other, made.jobId));
    expect([error.code, reasonOf(error)]).toEqual([Code.NotFound, 'RESOURCE_NOT_FOUND']);
  });
});

describe('a job that waits says what for', () => {
  test('for one of the organization’s places: position, quota, and an estimate once jobs have ended', async () => {
    const small = await world.lab({ maxConcurrentJobs: 1 });
    const first = await small.submit();
    const second = await small.submit();
    const third = await small.submit();
    const urgent = await small.submit({ priority: 5 });
    const waiting = async (jobId: string) => (await get(small, jobId)).waiting!;
    expect(await waiting(second.jobId)).toMatchObject({
      reason: JobWaitReason.JOB_QUOTA,
      position: 2n,
      quota: 'max_concurrent_jobs',
      limit: 1n,
      used: 1n,
      detail: 'waiting for another job to end: the organization may run 1 job at once; 1 job is before it',
    });
    expect((await waiting(second.jobId)).estimatedWait).toBeUndefined();
    expect((await waiting(third.jobId)).position).toBe(3n);
    expect(await waiting(urgent.jobId)).toMatchObject({ position: 1n });

    const [task] = await world.lease(first.jobId);
    await world.settle(task!);
    const now = await waiting(third.jobId);
    expect(now.estimatedWait).toBeDefined();
    const { admin } = world.catalog;
    await admin.query(
      `UPDATE catalog.jobs_meta SET admitted_at = ended_at - interval '40 s', materialized_at = ended_at - interval '30 s'
       WHERE job_id = $1`,
      [first.jobId],
    );
    const later = await waiting(third.jobId);
    expect(Number(later.estimatedWait!.seconds)).toBe(40 * Number(later.position));
  });

  test('for a worker: its place by the clocks of the fair queue, which no other organization can read more of', async () => {
    const { admin } = world.catalog;
    await admin.query('UPDATE catalog.org_queue SET vtime = 1000');
    const busy = await world.lab();
    const made = [await busy.submit(), await busy.submit(), await busy.submit()];
    const late = await lab.submit();
    // Both begin at one clock: three tasks of the busy one, of which those before the late one's turn count.
    await admin.query('UPDATE catalog.org_queue SET vtime = 5 WHERE org_id = $1', [busy.orgId]);
    await admin.query('UPDATE catalog.org_queue SET vtime = 7.5 WHERE org_id = $1', [lab.orgId]);
    const { waiting } = await get(lab, late.jobId);
    // Its own turn is at 8.5; the busy one's are at 6, 7 and 8.
    expect(waiting).toMatchObject({ reason: JobWaitReason.WORKER, position: 4n, quota: '' });
    expect(waiting!.engine).toMatch(/^rdkit@/);
    expect(waiting!.detail).toBe(`waiting for a worker with ${waiting!.engine}: 3 tasks are before it`);
    // The login that serves users may ask for the sum, and for no organization's row behind it.
    const database = await openCatalogDatabase(world.catalog.config.database);
    try {
      const sql = 'SELECT count(*)::int AS rows, catalog.tasks_ahead($1, 8.5)::int AS ahead FROM catalog.org_queue';
      const seen = await database.inOrg(lab.orgId, (tx) => tx.query(sql, [waiting!.engine]));
      expect(seen).toEqual([{ rows: 1, ahead: 3 }]);
    } finally {
      await database.close();
    }
    // Of one's own organization the earlier jobs are before it too.
    await admin.query('UPDATE catalog.org_queue SET vtime = 100 WHERE org_id = $1', [lab.orgId]);
    expect((await get(busy, made[2]!.jobId)).waiting).toMatchObject({ position: 3n });
    const { orgId } = busy;
    await Promise.all(made.map(({ jobId }) => busy.jobs.cancelJob({ orgId, requestId: uuidv7(), jobId })));
  });

  test('for a task to end when the organization is at its cap', async () => {
    const small = await world.lab({ maxRunningTasks: 1 });
    const first = await small.submit();
    const second = await small.submit();
    const [task] = await world.lease(first.jobId);
    expect((await get(small, first.jobId)).waiting).toBeUndefined();
    expect((await get(small, second.jobId)).waiting).toMatchObject({
      reason: JobWaitReason.TASK_QUOTA,
      position: 1n,
      quota: 'max_running_tasks',
      limit: 1n,
      used: 1n,
      detail: 'waiting for a task to end: the organization may run 1 at once; no task is before it',
    });
    await world.settle(task!);
  });

  test('for its database, and for the time at which its tasks are offered again', async () => {
    world.results.faults.set('materialize', { error: fault(Code.Unavailable, 'DATABASE_UNAVAILABLE'), times: 1_000 });
    const stuck = await lab.submit();
    world.results.faults.delete('materialize');
    expect((await get(lab, stuck.jobId)).waiting).toMatchObject({
      reason: JobWaitReason.TENANT,
      detail: "waiting for the organization's database",
    });

    const other = await world.lab();
    const given = await other.submit();
    await world.catalog.admin.query(
      `UPDATE catalog.task_queue SET state = 'delayed', not_before = now() + interval '1 hour' WHERE job_id = $1`,
      [given.jobId],
    );
    const { waiting } = await get(other, given.jobId);
    expect(waiting).toMatchObject({ reason: JobWaitReason.RETRY });
    expect(Number(waiting!.estimatedWait!.seconds)).toBeGreaterThan(3_500);
  });
});

test('estimates are in proportion to the place, and absent where nothing is known', () => {
  expect(jobWaitMs(3, 2, { jobSeconds: 10, taskSeconds: null })).toBe(15_000);
  expect(jobWaitMs(3, 0, { jobSeconds: 10, taskSeconds: null })).toBeUndefined();
  expect(jobWaitMs(3, 2, { jobSeconds: null, taskSeconds: null })).toBeUndefined();
  expect(taskWaitMs(4, { jobSeconds: null, taskSeconds: 0.25 })).toBe(1_000);
  expect(taskWaitMs(4, { jobSeconds: 1, taskSeconds: null })).toBeUndefined();
  expect([0, 1, 2].map((ahead) => before(ahead, 'job'))).toEqual([
    'no job is before it',
    '1 job is before it',
    '2 jobs are before it',
  ]);
});
