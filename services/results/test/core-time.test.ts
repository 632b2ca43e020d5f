import { afterAll, beforeAll, expect, test } from '@jest/globals';
import {
  bearer,
  docking,
  openWorld,
  rows,
  similarity,
  type JobOptions,
  type Organization,
  type World,
} from './support/world.ts';

/** What jobs took of the workers' cores, and what earlier results saved them. */

let world: World;
let org: Organization;

beforeAll(async () => {
  world = await openWorld();
});

afterAll(() => world.close());

const CORES = 3;
const plans = [similarity({ cores: CORES, chunkSize: 10 })];

const took = async (jobId: string) => {
  const { jobRun } = await world.jobRuns.getJobRun({ orgId: org.orgId, jobId }, bearer(org.token));
  return { coreMs: Number(jobRun!.coreMs), savedCoreMs: Number(jobRun!.savedCoreMs) };
};

/** Runs a job whose executions last so many seconds, as the tenant's clock sees it. */
async function run(seconds: number, options: JobOptions = {}) {
  const { jobId, runnable } = await world.materialize(org, { plans, ...options });
  for (const { taskExecutionId: id } of runnable) {
    const { items } = await world.start(org, id);
    await world.append(
      org,
      id,
      items.map(({ itemNo }) => ({ itemNo, score: 0.5 })),
    );
    await rows(
      org,
      `UPDATE task_executions SET started_at = now() - make_interval(secs => $2) WHERE task_execution_id = $1`,
      [id, seconds],
    );
    await world.finish(org, id);
  }
  return jobId;
}

test('an execution takes its time, on each of its cores; catalog is told the sum, and a repeat adds nothing', async () => {
  org = await world.organization();
  const jobId = await run(20, {
    plans: [similarity({ cores: CORES, chunkSize: 2 })],
    smiles: ['C', 'CC', 'CCC', 'CCCC'],
  });
  const { coreMs } = await took(jobId);
  // Two executions; the test's own time comes on top.
  expect(coreMs).toBeGreaterThanOrEqual(2 * 20_000 * CORES);
  expect(coreMs).toBeLessThan(2 * 60_000 * CORES);
  expect(world.around.settled.at(-1)!.progress).toMatchObject({ coreMs: BigInt(coreMs), savedCoreMs: 0n });
  const [execution] = await rows<{ id: string }>(org, 'SELECT task_execution_id AS id FROM task_executions LIMIT 1');
  await world.finish(org, execution!.id);
  expect((await took(jobId)).coreMs).toBe(coreMs);
});

test('an answer saves its share of the execution that computed it, also within a job', async () => {
  org = await world.organization();
  const first = await run(40, { smiles: ['C', 'CC', 'CCC', 'CCCC'] });
  const { coreMs } = await took(first);
  const answered = await run(0, { smiles: ['C', 'CC', 'C'] });
  const saved = (await took(answered)).savedCoreMs;
  expect(Math.abs(saved - (3 * coreMs) / 4)).toBeLessThanOrEqual(1);
  expect((await took(answered)).coreMs).toBe(0);

  const followed = await run(30, { smiles: ['N', 'NN', 'N'] });
  const own = await took(followed);
  expect(Math.abs(own.savedCoreMs - own.coreMs / 2)).toBeLessThanOrEqual(1);
});

test('an execution whose workers were lost counts nothing: nobody knows how long they worked', async () => {
  org = await world.organization();
  const { jobId, runnable } = await world.materialize(org, { plans: [docking({ cores: CORES })], smiles: ['C'] });
  const { taskExecutionId: id } = runnable[0]!;
  await world.start(org, id);
  await rows(org, `UPDATE task_executions SET started_at = now() - interval '1 hour'`);
  const lost = { orgId: org.orgId, taskExecutionId: id, attempt: 9, errorClass: 'WORKER_LOST', errorMessage: '' };
  await world.asCatalog.failExecution(lost);
  expect(await took(jobId)).toEqual({ coreMs: 0, savedCoreMs: 0 });
});
