import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { CachePolicy } from '@mad/proto/catalog';
import {
  docking,
  openWorld,
  rows,
  similarity,
  type JobOptions,
  type Organization,
  type World,
} from './support/world.ts';

let world: World;
let org: Organization;

beforeAll(async () => {
  world = await openWorld({ cacheTtlDays: 30 });
});

afterAll(() => world.close());

/** Each test has a cache of its own. */
async function newOrg(): Promise<void> {
  org = await world.organization();
}

const POSES = [1, 2].map((poseRank) => ({ replicate: 1, poseRank, score: -7, rawScore: -7, rmsdLb: 0, rmsdUb: 0 }));

/** Docks one molecule; returns the job and how many items earlier results answered. */
async function dock(options: JobOptions = {}, confidenceScore: number | undefined = 0.5, score = -7) {
  const made = await world.materialize(org, { smiles: ['C'], plans: [docking()], ...options });
  for (const { taskExecutionId } of made.runnable) {
    await world.run(org, taskExecutionId, () => ({ score, confidenceScore, poses: POSES }));
  }
  return { jobId: made.jobId, cached: Number(made.progress!.counters!.cached) };
}

const missesOf = async (jobId: string) =>
  (
    await rows<{ miss: string | null }>(
      org,
      'SELECT cache_miss AS miss FROM task_results WHERE job_id = $1 ORDER BY item_no',
      [jobId],
    )
  ).map(({ miss }) => miss);

const age = (sql: string) => rows(org, `UPDATE result_cache SET created_at = created_at - interval '${sql}'`);

const history = () =>
  rows<Record<string, unknown>>(
    org,
    `SELECT version, canonical_job_id, confidence_score, hit_count::int AS hits, status, reason FROM result_cache_history
      ORDER BY cache_key, version`,
  );

test('a job takes nothing older than it asked for, and what it computes instead is what the next one takes', async () => {
  await newOrg();
  const first = await dock();
  await age('2 days');
  expect(await dock({ maxAgeS: 3 * 86_400 })).toMatchObject({ cached: 1 });
  const second = await dock({ maxAgeS: 86_400 });
  expect(second.cached).toBe(0);
  expect(await missesOf(second.jobId)).toEqual(['too_old']);
  expect(await dock({ maxAgeS: 86_400 })).toMatchObject({ cached: 1 });
  expect(await history()).toEqual([
    { version: 1, canonical_job_id: first.jobId, confidence_score: 0.5, hits: 1, status: 'valid', reason: 'too_old' },
  ]);
});

test('results expire after the days the installation is set to', async () => {
  await newOrg();
  const { jobId } = await dock();
  expect(await missesOf(jobId)).toEqual(['never_computed']);
  expect(await rows(org, `SELECT expires_at - created_at = interval '30 days' AS right FROM result_cache`)).toEqual([
    { right: true },
  ]);
  await rows(org, `UPDATE result_cache SET expires_at = now() - interval '1 second'`);
  const again = await dock();
  expect(await missesOf(again.jobId)).toEqual(['expired']);
  expect(await history()).toMatchObject([{ canonical_job_id: jobId, reason: 'expired' }]);
});

test('a better converged result takes the place of a worse one, whose hits stay with it; a worse one is not kept', async () => {
  await newOrg();
  const first = await dock({}, 0.4);
  await dock();
  await dock();
  const better = await dock({ minConfidence: 0.8 }, 0.6, -8);
  expect(await missesOf(better.jobId)).toEqual(['low_confidence']);
  const worse = await dock({ minConfidence: 0.9 }, 0.5, -9);
  expect(worse.cached).toBe(0);
  const taken = await dock();
  expect(
    await rows(org, 'SELECT reused_from_job_id AS source, score FROM task_results WHERE job_id = $1', [taken.jobId]),
  ).toEqual([{ source: better.jobId, score: -8 }]);
  expect(await history()).toEqual([
    { version: 1, canonical_job_id: first.jobId, confidence_score: 0.4, hits: 2, status: 'valid', reason: 'better' },
  ]);
  expect(
    await rows(org, 'SELECT version, hit_count::int AS hits, last_used_at IS NULL AS unused FROM result_cache'),
  ).toEqual([{ version: 2, hits: 1, unused: false }]);
});

test('a result whose poses are gone answers nothing, and is replaced even by one that converged less', async () => {
  await newOrg();
  const first = await dock({}, 0.9);
  await rows(org, 'DELETE FROM docking_results WHERE job_id = $1 AND pose_rank = 2', [first.jobId]);
  const second = await dock({}, 0.3);
  expect(second.cached).toBe(0);
  expect(await missesOf(second.jobId)).toEqual(['output_missing']);
  expect(await history()).toMatchObject([{ canonical_job_id: first.jobId, reason: 'output_missing' }]);
  expect(await dock()).toMatchObject({ cached: 1 });
});

test('a task without poses needs none', async () => {
  await newOrg();
  const made = await world.materialize(org, { smiles: ['C'], plans: [similarity()] });
  await world.run(org, made.runnable[0]!.taskExecutionId, () => ({ score: 0.5 }));
  expect((await world.materialize(org, { smiles: ['C'], plans: [similarity()] })).runnable).toEqual([]);
});

test('a job that looks for no earlier results notes no misses; one that takes only those says why it failed', async () => {
  await newOrg();
  expect(await missesOf((await dock({ policy: CachePolicy.REFRESH })).jobId)).toEqual([null]);
  await rows(org, `UPDATE result_cache SET status = 'invalid'`);
  const only = await dock({ policy: CachePolicy.ONLY, smiles: ['C', 'CC'] });
  expect(await missesOf(only.jobId)).toEqual(['invalidated', 'never_computed']);
  expect(
    await rows(org, 'SELECT error_message FROM task_results WHERE job_id = $1 AND item_no = 1', [only.jobId]),
  ).toEqual([{ error_message: 'no earlier result fits (invalidated), and the job asked for none but those' }]);
});

test('of results of the same the better converged one is kept, in whatever order they come', async () => {
  await newOrg();
  await dock({}, 0.2);
  expect(await dock({ minConfidence: 0.5 }, 0.9)).toMatchObject({ cached: 0 });
  expect(await dock({ minConfidence: 0.95 }, 0.6)).toMatchObject({ cached: 0 });
  expect(await rows(org, 'SELECT confidence_score FROM result_cache')).toEqual([{ confidence_score: 0.9 }]);
});
