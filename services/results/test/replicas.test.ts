import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { CachePolicy } from '@mad/proto/catalog';
import { endedAgo, pose, retentionOf } from './support/retention.ts';
import { bearer, docking, openWorld, rows, type JobOptions, type Organization, type World } from './support/world.ts';

/** Asking for more replicas of a search tops it up: what is known is handed to the worker, which runs the others. */

let world: World;
let org: Organization;

beforeAll(async () => {
  world = await openWorld();
});

afterAll(() => world.close());

beforeEach(async () => {
  org = await world.organization();
});

const plans = (replicas: number, seed = 42) => [
  docking({ deterministic: true, parameters: { seed, replicas, receptor: 'artifact' } }),
];

const replicasSaid = (count: number) =>
  Array.from({ length: count }, (_, index) => ({ seed: 42 + index, affinity: -7 - index, top: 'C 0 0 0' }));
const posesOf = (count: number) =>
  Array.from({ length: count }, (_, index) => ({ ...pose, replicate: index + 1, score: -7 - index, rawScore: -6.5 }));

/** Makes a job of so many replicas and runs it to its end, as an engine that runs what is missing would. */
async function run(replicas: number, options: JobOptions = {}) {
  const made = await world.materialize(org, { smiles: ['CCO'], plans: plans(replicas), ...options });
  const priors = [];
  for (const { taskExecutionId: id } of made.runnable) {
    const { items } = await world.start(org, id);
    priors.push(...items.map(({ prior }) => prior));
    const outcomes = items.map(({ itemNo }) => ({
      itemNo,
      score: -6 - replicas,
      confidenceScore: 0.8,
      resultData: { replicas: replicasSaid(replicas), torsions: 1 },
      poses: posesOf(replicas),
    }));
    await world.append(org, id, outcomes);
    await world.finish(org, id);
  }
  const { items } = await world.jobRuns.listWorkItems({ orgId: org.orgId, jobId: made.jobId }, bearer(org.token));
  return { jobId: made.jobId, cached: Number(made.progress!.counters!.cached), priors, items };
}

test('five replicas of which three are known: the worker is given three, and the item says whose they were', async () => {
  const three = await run(3);
  expect(three.priors).toEqual([undefined]);
  const five = await run(5);
  expect(five.cached).toBe(0);
  expect(five.priors).toMatchObject([{ resultData: { replicas: replicasSaid(3), torsions: 1 }, poses: posesOf(3) }]);
  expect(five.items).toMatchObject([{ extendedFromJobId: three.jobId, extendedFromItemNo: 1, confidenceScore: 0.8 }]);
  expect(three.items).toMatchObject([{ extendedFromJobId: '', extendedFromItemNo: 0 }]);
  const { events } = await world.jobRuns.listJobEvents({ orgId: org.orgId, jobId: five.jobId }, bearer(org.token));
  expect(events[0]!.metadata).toEqual({ requested: 1, cached: 0, topped_up: 1 });
  // Both are kept: each answers who asks for as many.
  expect(await run(5)).toMatchObject({ cached: 1, priors: [] });
  expect(await run(3)).toMatchObject({ cached: 1, priors: [] });
});

test('the most that is known below what is asked for is taken, and never more than that', async () => {
  await run(1);
  const three = await run(3);
  await run(6);
  const four = await run(4);
  expect(four.items[0]!.extendedFromJobId).toBe(three.jobId);
  expect(four.priors[0]!.poses).toHaveLength(3);
  const two = await run(2);
  expect(two.priors[0]!.poses).toHaveLength(1);
});

test('another seed, another molecule, or another parameter is another search', async () => {
  await run(3);
  expect((await run(5, { plans: plans(5, 43) })).priors).toEqual([undefined]);
  expect((await run(5, { smiles: ['CCN'] })).priors).toEqual([undefined]);
  const [plan] = plans(5);
  const parameters = { ...plan!.parameters, exhaustiveness: 9 };
  expect((await run(5, { plans: [{ ...plan, parameters }] })).priors).toEqual([undefined]);
  expect((await run(5, { plans: [{ ...plan, task: 'vina.other' }] })).priors).toEqual([undefined]);
});

test.each([
  ['refresh', CachePolicy.REFRESH],
  ['bypass', CachePolicy.BYPASS],
])('a job that wants no earlier results (%s) runs all of its replicas', async (_name, policy) => {
  await run(3);
  expect((await run(5, { policy })).priors).toEqual([undefined]);
});

test('what is invalid, expired, or has lost a pose is not topped up; what is below the confidence asked for is', async () => {
  await run(3);
  expect((await run(4, { minConfidence: 0.95 })).priors).toHaveLength(1);
  expect((await run(5, { minConfidence: 0.95 })).priors[0]?.poses).toHaveLength(4);
  await rows(org, `UPDATE result_cache SET status = 'invalid' WHERE replicas > 3`);
  expect((await run(6)).priors[0]?.poses).toHaveLength(3);
  await rows(org, `UPDATE result_cache SET status = 'invalid' WHERE replicas > 3`);
  await rows(org, `UPDATE result_cache SET expires_at = now() - interval '1 second' WHERE replicas = 3`);
  expect((await run(7)).priors).toEqual([undefined]);
  await rows(org, `UPDATE result_cache SET status = 'invalid' WHERE replicas > 3`);
  await rows(org, `UPDATE result_cache SET expires_at = NULL`);
  await rows(org, `DELETE FROM docking_results WHERE replicate = 3`);
  expect((await run(8)).priors).toEqual([undefined]);
});

test('items of one job with the same input are topped up once', async () => {
  const smiles = ['CCO', 'CCO', 'CCN'];
  await run(3, { smiles: ['CCO'] });
  const five = await run(5, { smiles });
  expect(five.priors.map((prior) => prior?.poses.length)).toEqual([3, undefined]);
  expect(five.items.map((item) => item.extendedFromJobId !== '')).toEqual([true, false, false]);
});

test('retention leaves what a job that waits will be topped up from', async () => {
  const three = await run(3);
  await endedAgo(org, three.jobId, 50);
  const waiting = await world.materialize(org, { smiles: ['CCO'], plans: plans(5) });
  const retention = retentionOf(world, org);
  await retention.set([{ keepDays: 30 }]);
  expect((await retention.apply()).deleted).toMatchObject({ jobs: 1n, items: 0n });
  const { taskExecutionId: id } = waiting.runnable[0]!;
  expect((await world.start(org, id)).items[0]!.prior?.poses).toHaveLength(3);
  await world.finish(org, id);
  expect((await retention.apply()).deleted).toMatchObject({ items: 1n, poses: 3n });
});
