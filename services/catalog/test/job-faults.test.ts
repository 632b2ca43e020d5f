import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Code } from '@connectrpc/connect';
import { JobState } from '@mad/proto/catalog';
import { eventually, startJobWorld, type JobWorld, type Lab } from './job-world.ts';
import { fault } from './results-neighbour.ts';

let world: JobWorld;

beforeAll(async () => {
  world = await startJobWorld({ provisioning: 'on_first_write' });
});
afterAll(() => world.close());

const stateOf = (lab: Lab, jobId: string, wanted: JobState) =>
  eventually(`the job is ${JobState[wanted]}`, async () => {
    const job = await lab.job(jobId);
    return job.state === wanted ? job : undefined;
  });
const calls = (method: string, jobId: string) =>
  world.results.calls.filter((call) => call === `${method} ${jobId}`).length;

describe('a job that could not be begun', () => {
  test.each([
    ['before results did anything', false],
    ['after it did, with the answer lost', true],
  ])('%s, is begun by its message: one job, one task', async (_when, after) => {
    const lab = await world.lab();
    world.results.faults.set('materialize', { error: fault(Code.Unavailable), times: 1, after });
    const made = await lab.submit();
    expect([made.state, made.detail]).toEqual([
      JobState.PENDING,
      'waiting: the job could not be begun yet, and is tried again',
    ]);
    const job = await stateOf(lab, made.jobId, JobState.QUEUED);
    expect(job.detail).toBe('');
    expect(calls('materialize', made.jobId)).toBe(2);
    const tasks = await world.lease(made.jobId);
    expect(tasks).toHaveLength(1);
    await world.settle(tasks[0]!);
    await stateOf(lab, made.jobId, JobState.COMPLETED);
  });

  test('because results refuses it, has failed and says why, and gives its place to the next', async () => {
    const lab = await world.lab({ maxConcurrentJobs: 1 });
    world.results.faults.set('materialize', { error: fault(Code.InvalidArgument), times: 1 });
    const refused = await lab.submit();
    expect(refused.state).toBe(JobState.FAILED);
    expect(refused.detail).toContain('as the test wants it');
    expect((await lab.submit()).state).toBe(JobState.QUEUED);
  });

  test('because its organization is suspended meanwhile, waits and says so in the words of results', async () => {
    const lab = await world.lab();
    const error = fault(Code.FailedPrecondition, 'TENANT_SUSPENDED');
    world.results.faults.set('materialize', { error, times: 1 });
    const made = await lab.submit();
    expect([made.state, made.detail]).toEqual([JobState.PENDING, 'waiting: as the test wants it']);
    await stateOf(lab, made.jobId, JobState.QUEUED);
  });
});

describe('an organization without database', () => {
  test('gets it with its first job', async () => {
    world.results.provisioned = false;
    try {
      const lab = await world.lab();
      const made = await lab.submit();
      expect(made.state).toBe(JobState.QUEUED);
      expect(world.results.calls).toContain('ensure results local');
      expect(calls('materialize', made.jobId)).toBe(2);
    } finally {
      world.results.provisioned = true;
    }
  });
});

test('a cancellation that comes while the job is being made ends it: it is made first, so that it cannot be made later', async () => {
  const lab = await world.lab();
  world.results.faults.set('materialize', { error: fault(Code.Unavailable), times: 1 });
  const made = await lab.submit();
  const { job } = await lab.jobs.cancelJob({ orgId: lab.orgId, jobId: made.jobId, requestId: made.jobId });
  expect(job).toMatchObject({ state: JobState.CANCELLED, counters: { requested: 3n, cancelled: 3n } });
  expect(calls('materialize', made.jobId)).toBe(2);
  // The message that would have begun it finds nothing to do.
  await new Promise((resolve) => setTimeout(resolve, 4_500));
  expect(calls('materialize', made.jobId)).toBe(2);
  expect(await world.lease(made.jobId)).toEqual([]);
});
