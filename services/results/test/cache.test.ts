import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { CachePolicy, JobState } from '@mad/proto/catalog';
import {
  docking,
  openWorld,
  rows,
  similarity,
  type JobOptions,
  type Organization,
  type Outcome,
  type World,
} from './support/world.ts';

let world: World;
let org: Organization;

beforeAll(async () => {
  world = await openWorld();
});

afterAll(() => world.close());

/** Each test has a cache of its own. */
async function newOrg(): Promise<void> {
  org = await world.organization();
}

const SMILES = ['C', 'CC', 'CCC'];
type Said = Omit<Outcome, 'itemNo'>;

/** Makes a job and runs all of it. */
async function runJob(options: JobOptions = {}, outcome: (smiles: string) => Said = () => ({ score: 0.5 })) {
  const made = await world.materialize(org, { smiles: SMILES, ...options });
  const queue = [...made.runnable];
  for (const { taskExecutionId } of queue) {
    await world.run(org, taskExecutionId, outcome);
    queue.push(...world.around.settled.at(-1)!.runnable);
  }
  const { progress } = await world.asCatalog.reconcileJob({ orgId: org.orgId, jobId: made.jobId });
  return { jobId: made.jobId, progress, first: made };
}

const items = (jobId: string) =>
  rows<Record<string, unknown>>(
    org,
    `SELECT task_id, item_no, status, score, confidence_score, error_class, reused_from_job_id, reused_from_item_no, result_data
      FROM task_results JOIN job_tasks USING (job_id, task_id) WHERE job_id = $1 ORDER BY position, item_no`,
    [jobId],
  );

test('the same job again is answered from the cache, whatever the order, and done at once', async () => {
  await newOrg();
  const score = (smiles: string): Said => ({ score: smiles.length / 10, resultData: { smiles } });
  const { jobId } = await runJob({}, score);
  const { first, jobId: again } = await runJob({ smiles: ['CCC title', ' CC', 'C\t1'] });
  expect(first.runnable).toEqual([]);
  expect(first.progress).toMatchObject({ state: JobState.COMPLETED, counters: { requested: 3n, cached: 3n } });
  expect(await items(again)).toMatchObject([
    {
      item_no: 1,
      status: 'cached',
      score: 0.3,
      result_data: { smiles: 'CCC' },
      reused_from_job_id: jobId,
      reused_from_item_no: 3,
    },
    { item_no: 2, status: 'cached', score: 0.2, confidence_score: 1, reused_from_item_no: 2 },
    { item_no: 3, status: 'cached', score: 0.1, reused_from_item_no: 1 },
  ]);
  await runJob();
  expect(await rows(org, 'SELECT hit_count::int AS hits, last_used_at IS NOT NULL AS used FROM result_cache')).toEqual(
    Array.from({ length: 3 }, () => ({ hits: 2, used: true })),
  );
});

test('a third job is answered from the first, not from the second’s cached items', async () => {
  await newOrg();
  const { jobId } = await runJob();
  await runJob();
  const { jobId: third } = await runJob();
  expect((await items(third)).map((item) => item['reused_from_job_id'])).toEqual([jobId, jobId, jobId]);
});

test('another organization’s results are no hits', async () => {
  await newOrg();
  await runJob();
  await newOrg();
  const { progress } = await runJob();
  expect(progress?.counters).toMatchObject({ cached: 0n, scored: 3n });
});

test('other parameters, another engine, recipe, cache version or task of the engine are misses', async () => {
  await newOrg();
  await runJob();
  const changes = [
    { parameters: { reference: 'CCN' } },
    { engine: 'rdkit@2027.03.1' },
    { recipe: 'other' },
    { cacheVersion: 2 },
    { rdkitVersion: '2027.03.1' },
    { task: 'rdkit.properties' },
  ];
  for (const change of changes) {
    const { first } = await runJob({ plans: [similarity(change)] });
    expect(first.progress?.counters).toMatchObject({ cached: 0n });
  }
  const { first } = await runJob({ plans: [similarity({ taskId: 'renamed', chunkSize: 1, cores: 8, memoryMb: 9 })] });
  expect(first.progress?.counters).toMatchObject({ cached: 3n });
});

test('failed items are no sources, and nor is anything of a cancelled job', async () => {
  await newOrg();
  await runJob({}, (smiles) => (smiles === 'CC' ? { errorClass: 'IMPLAUSIBLE', errorMessage: 'x' } : { score: 1 }));
  const made = await world.materialize(org, { smiles: ['O'] });
  await world.start(org, made.runnable[0]!.taskExecutionId);
  await world.append(org, made.runnable[0]!.taskExecutionId, [{ itemNo: 1, score: 1 }]);
  await world.asCatalog.cancelJobRun({ orgId: org.orgId, jobId: made.jobId });
  const { first } = await runJob({ smiles: [...SMILES, 'O'] });
  expect(first.progress?.counters).toMatchObject({ cached: 2n, pending: 2n });
});

test('refresh computes all and replaces what is kept; bypass keeps nothing and takes nothing', async () => {
  await newOrg();
  const bypass = await runJob({ policy: CachePolicy.BYPASS });
  expect(bypass.progress?.counters).toMatchObject({ scored: 3n });
  expect(await rows(org, 'SELECT 1 FROM result_cache')).toEqual([]);
  await runJob();
  const refresh = await runJob({ policy: CachePolicy.REFRESH }, () => ({ score: 0.9 }));
  expect(refresh.progress?.counters).toMatchObject({ scored: 3n, cached: 0n });
  const { jobId } = await runJob();
  expect((await items(jobId)).map((item) => [item['score'], item['reused_from_job_id']])).toEqual(
    SMILES.map(() => [0.9, refresh.jobId]),
  );
});

test('only takes what fits and fails the rest, at once; later tasks are skipped', async () => {
  await newOrg();
  await runJob({ smiles: ['C'] });
  const plans = [similarity(), similarity({ taskId: 'next', parameters: { reference: 'N' }, dependsOn: ['screen'] })];
  const { first, jobId } = await runJob({ smiles: ['C', 'N'], plans, policy: CachePolicy.ONLY });
  expect(first.runnable).toEqual([]);
  expect(first.progress).toMatchObject({
    state: JobState.COMPLETED,
    counters: { cached: 1n, failed: 2n, skipped: 1n },
  });
  expect((await items(jobId)).map(({ status, error_class: error }) => [status, error])).toEqual([
    ['cached', ''],
    ['failed', 'CACHE_MISS'],
    ['failed', 'CACHE_MISS'],
    ['skipped', ''],
  ]);
});

test('a threshold refuses what converged less, and what nobody measured; better replaces, worse does not', async () => {
  await newOrg();
  const poses = [{ replicate: 1, poseRank: 1, score: -7, rawScore: -7, rmsdLb: 0, rmsdUb: 0 }];
  const run = (confidenceScore: number | undefined, minConfidence: number, score = -7) =>
    runJob({ smiles: ['C'], plans: [docking()], minConfidence }, () => ({ score, poses, confidenceScore }));
  await run(undefined, 0);
  expect(await rows(org, 'SELECT confidence_score FROM result_cache')).toEqual([{ confidence_score: null }]);
  // Without a threshold what nobody measured is as good as any.
  expect((await run(undefined, 0)).first.progress?.counters).toMatchObject({ cached: 1n });
  expect((await run(0.6, 0.5, -8)).first.progress?.counters).toMatchObject({ cached: 0n });
  expect((await run(0.4, 0.7, -9)).first.progress?.counters).toMatchObject({ cached: 0n });
  const { jobId } = await run(undefined, 0.6);
  expect(await items(jobId)).toMatchObject([{ status: 'cached', score: -8, confidence_score: 0.6 }]);
});

test('entries that expired or were invalidated are misses and are replaced; pinned ones stay', async () => {
  await newOrg();
  const first = await runJob();
  await rows(org, `UPDATE result_cache SET expires_at = now() - interval '1 s' WHERE canonical_item_no = 1`);
  await rows(org, `UPDATE result_cache SET status = 'invalid' WHERE canonical_item_no = 2`);
  await rows(
    org,
    `UPDATE result_cache SET status = 'pinned', expires_at = now() - interval '1 s' WHERE canonical_item_no = 3`,
  );
  const second = await runJob();
  expect(second.first.progress?.counters).toMatchObject({ cached: 1n, pending: 2n });
  await runJob({ policy: CachePolicy.REFRESH });
  const { jobId } = await runJob();
  expect((await items(jobId))[2]).toMatchObject({ status: 'cached', reused_from_job_id: first.jobId });
  expect((await items(jobId))[0]?.['reused_from_job_id']).not.toBe(first.jobId);
});

test('equal molecules of a job are computed once and end alike', async () => {
  await newOrg();
  const smiles = ['C', 'N', 'C', 'N', 'C'];
  const { jobId, progress, first } = await runJob({ smiles }, (one) =>
    one === 'N'
      ? { errorClass: 'IMPLAUSIBLE', errorMessage: 'box off the receptor' }
      : { score: 0.5, resultData: { a: 1 } },
  );
  expect(first.runnable).toHaveLength(1);
  expect(progress?.counters).toMatchObject({ requested: 5n, scored: 1n, cached: 2n, failed: 2n });
  expect(await items(jobId)).toMatchObject([
    { status: 'scored' },
    { status: 'failed' },
    { status: 'cached', score: 0.5, result_data: { a: 1 }, reused_from_job_id: jobId, reused_from_item_no: 1 },
    { status: 'failed', error_class: 'IMPLAUSIBLE', reused_from_job_id: null },
    { status: 'cached', reused_from_item_no: 1 },
  ]);
});

test('a task waits for its upstream; items whose upstream failed are skipped, also those that follow them', async () => {
  await newOrg();
  const plans = [
    similarity({ chunkSize: 2 }),
    similarity({ taskId: 'dock', task: 'other.dock', dependsOn: ['screen'], chunkSize: 2 }),
    similarity({ taskId: 'rank', task: 'other.rank', dependsOn: ['dock'] }),
  ];
  const smiles = ['N', 'C', 'N', 'CC', 'O'];
  const made = await world.materialize(org, { smiles, plans });
  expect(made.runnable).toHaveLength(2);
  const blocked = await rows<{ id: string }>(
    org,
    `SELECT task_execution_id AS id FROM task_executions WHERE job_id = $1 AND status = 'blocked'`,
    [made.jobId],
  );
  expect(blocked).toHaveLength(3);
  await expect(world.start(org, blocked[0]!.id)).rejects.toThrow('has lost task execution');

  const fail = (one: string): Said =>
    one === 'N' || one === 'C' ? { errorClass: 'X', errorMessage: 'x' } : { score: 1 };
  await world.run(org, made.runnable[0]!.taskExecutionId, fail);
  expect(world.around.settled.at(-1)?.runnable).toEqual([]);
  await world.run(org, made.runnable[1]!.taskExecutionId, fail);
  // N, C and the second N were all of the first chunk: only the second one has anything to run.
  const next = world.around.settled.at(-1)!;
  expect(next.runnable).toHaveLength(1);
  expect(next.progress?.counters).toMatchObject({ failed: 3n, skipped: 3n, scored: 2n, pending: 7n });

  expect((await world.start(org, next.runnable[0]!.taskExecutionId)).items.map((item) => item.smiles)).toEqual([
    'CC',
    'O',
  ]);
  await world.run(org, next.runnable[0]!.taskExecutionId, () => ({ score: 0.2 }));
  const last = world.around.settled.at(-1)!;
  expect(last.runnable).toHaveLength(1);
  await world.run(org, last.runnable[0]!.taskExecutionId, () => ({ score: 0.3 }));
  expect(world.around.settled.at(-1)?.progress).toMatchObject({
    state: JobState.COMPLETED,
    counters: { requested: 15n, scored: 6n, failed: 3n, skipped: 6n, pending: 0n },
  });
  expect(await rows(org, `SELECT DISTINCT status FROM task_executions WHERE job_id = $1`, [made.jobId])).toEqual([
    { status: 'finished' },
  ]);
});

test('when everything upstream failed, the job ends without running the rest', async () => {
  await newOrg();
  const plans = [similarity(), similarity({ taskId: 'dock', task: 'other.dock', dependsOn: ['screen'] })];
  const { progress } = await runJob({ plans }, () => ({ errorClass: 'X', errorMessage: 'x' }));
  expect(progress).toMatchObject({ state: JobState.FAILED, counters: { failed: 3n, skipped: 3n } });
});

test('jobs that finish equal inputs at the same time do not block each other for ever', async () => {
  await newOrg();
  const smiles = Array.from({ length: 60 }, (_one, index) => 'C'.repeat(index + 1));
  const made = await Promise.all(
    [smiles, smiles.toReversed(), smiles, smiles.toReversed()].map((molecules) =>
      world.materialize(org, {
        smiles: molecules,
        plans: [similarity({ chunkSize: 20 })],
        policy: CachePolicy.REFRESH,
      }),
    ),
  );
  const executions = made.flatMap(({ runnable }) => runnable);
  expect(executions).toHaveLength(12);
  await Promise.all(executions.map(({ taskExecutionId }) => world.run(org, taskExecutionId, () => ({ score: 1 }))));
  expect(await rows(org, 'SELECT count(*)::int AS n FROM result_cache')).toEqual([{ n: 60 }]);
  for (const { jobId } of made) {
    const { progress } = await world.asCatalog.reconcileJob({ orgId: org.orgId, jobId });
    expect(progress).toMatchObject({ state: JobState.COMPLETED, counters: { scored: 60n } });
  }
});
