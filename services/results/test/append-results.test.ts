import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { sleep, uuidv7 } from '@mad/process';
import { errorMetadataOf, violationsOf } from '@mad/rpc';
import { columnsOf, type Columns, type Outcome } from './support/columns.ts';
import { failureOf } from './support/errors.ts';
import { newSmiles } from './support/smiles.ts';
import {
  docking,
  openWorld,
  rows,
  similarity,
  type BatchInit,
  type Organization,
  type World,
} from './support/world.ts';

let world: World;
let org: Organization;

beforeAll(async () => {
  world = await openWorld();
  org = await world.organization();
});

afterAll(() => world.close());

/** A molecule nobody computed before in this file. */

/** A job of one execution, made and started under attempt 1. */
async function startedJob(count: number, plan = docking({ chunkSize: 10_000 })) {
  const smiles = newSmiles(Math.min(count, 20));
  while (smiles.length < count)
    smiles.push(`C${'O'.repeat(smiles.length % 500)}.${'N'.repeat(1 + Math.floor(smiles.length / 500))}`);
  const made = await world.materialize(org, { smiles, plans: [plan] });
  const id = made.runnable[0]!.taskExecutionId;
  await world.start(org, id);
  return { id, jobId: made.jobId, lease: await world.lease(org, id, 1) };
}

const pose = (changes: object = {}) => ({
  replicate: 1,
  poseRank: 1,
  score: -7,
  rawScore: -9,
  rmsdLb: 0,
  rmsdUb: 0,
  ...changes,
});
const docked = (itemNo: number, changes: Partial<Outcome> = {}): Outcome => ({
  itemNo,
  score: -7,
  poses: [pose()],
  ...changes,
});
const kcal = (...outcomes: Outcome[]): Columns => columnsOf(outcomes, 'kcal/mol');

const staged = (id: string) =>
  rows<{ item_no: number; score: number }>(
    org,
    'SELECT item_no, score FROM staged_results WHERE task_execution_id = $1 ORDER BY item_no',
    [id],
  );
const posesOf = (jobId: string) =>
  rows(org, 'SELECT item_no, replicate, pose_rank, score FROM docking_results WHERE job_id = $1 ORDER BY 1, 2, 3', [
    jobId,
  ]);

/** How results refuses a batch: the field it names. */
async function refusal(batch: BatchInit): Promise<string | undefined> {
  try {
    await world.stream([batch]);
    return undefined;
  } catch (error) {
    return violationsOf(error)[0]?.field;
  }
}

test.each<[string, Columns, string]>([
  ['a score that is no number', kcal(docked(1), docked(2, { score: NaN })), 'row 2: scored.score'],
  ['a score without bound', kcal(docked(1), docked(2, { score: -Infinity })), 'row 2: scored.score'],
  ['a score below −50', kcal(docked(1), docked(2, { score: -50.001 })), 'row 2: scored.score'],
  ['a score above 50', kcal(docked(1, { score: 1e7 }), docked(2)), 'row 1: scored.score'],
  ['a missing score', kcal(docked(1), docked(2, { score: undefined })), 'scored.score'],
  ['another unit', columnsOf([docked(1)], 'kJ/mol'), 'scored.score_units'],
  ['a confidence above 1', kcal(docked(1, { confidenceScore: 1.5 })), 'row 1: scored.confidence_score'],
  ['a confidence below 0', kcal(docked(1, { confidenceScore: -0.5 })), 'row 1: scored.confidence_score'],
  [
    'text that is no JSON',
    { ...kcal(docked(1)), scored: { ...kcal(docked(1)).scored!, resultData: ['{'] } },
    'row 1: scored.result_data',
  ],
  [
    'JSON that is no object',
    { ...kcal(docked(1)), scored: { ...kcal(docked(1)).scored!, resultData: ['[1]'] } },
    'row 1: scored.result_data',
  ],
  ['a NUL in the JSON', kcal(docked(1), docked(2, { resultData: { text: 'a\0b' } })), 'row 2: scored.result_data'],
  ['half a character in the JSON', kcal(docked(1, { resultData: { text: 'a\ud800' } })), 'row 1: scored.result_data'],
  [
    'a row of a megabyte',
    kcal(docked(1, { resultData: { text: 'x'.repeat(1024 * 1024) } })),
    'row 1: scored.result_data',
  ],
  ['an item twice', kcal(docked(1), docked(1)), 'row 2: scored.item_no'],
  ['items out of order', kcal(docked(2), docked(1)), 'row 2: scored.item_no'],
  ['item 0', kcal(docked(0)), 'row 1: scored.item_no'],
  ['an item that is not the execution’s', kcal(docked(1), docked(9)), 'row 2: scored.item_no'],
  ['an item scored and failed', kcal(docked(1), { itemNo: 1, errorClass: 'X' }), 'row 1: failed.item_no'],
  [
    'an error without class',
    { failed: { itemNo: [1], errorClass: [''], errorMessage: [''] } },
    'row 1: failed.error_class',
  ],
  ['a long error class', kcal({ itemNo: 1, errorClass: 'x'.repeat(64) }), 'row 1: failed.error_class'],
  ['a long error', kcal({ itemNo: 1, errorClass: 'x', errorMessage: 'x'.repeat(4001) }), 'row 1: failed.error_message'],
  ['a column too short', { failed: { itemNo: [1], errorClass: ['X'], errorMessage: [] } }, 'failed.error_message'],
  [
    'a pose column too long',
    { ...kcal(docked(1)), poses: { ...kcal(docked(1)).poses!, rmsdUb: [0, 0] } },
    'poses.rmsd_ub',
  ],
  ['a pose twice', kcal(docked(1), docked(2, { poses: [pose(), pose()] })), 'row 3: poses.pose_rank'],
  ['ranks out of order', kcal(docked(1, { poses: [pose({ poseRank: 2 }), pose()] })), 'row 2: poses.pose_rank'],
  [
    'replicas out of order',
    kcal(docked(1, { poses: [pose({ replicate: 2 }), pose({ poseRank: 5 })] })),
    'row 2: poses.pose_rank',
  ],
  [
    'a pose’s score above 50',
    kcal(docked(1, { poses: [pose(), pose({ poseRank: 2, score: 51 })] })),
    'row 2: poses.score',
  ],
  ['a raw score that is no number', kcal(docked(1, { poses: [pose({ rawScore: NaN })] })), 'row 1: poses.raw_score'],
  ['a distance below 0', kcal(docked(1, { poses: [pose({ rmsdUb: -1 })] })), 'row 1: poses.rmsd_ub'],
  ['a distance without bound', kcal(docked(1, { poses: [pose({ rmsdLb: Infinity })] })), 'row 1: poses.rmsd_lb'],
  ['replica 0', kcal(docked(1, { poses: [pose({ replicate: 0 })] })), 'row 1: poses.replicate'],
  ['rank 0', kcal(docked(1, { poses: [pose({ poseRank: 0 })] })), 'row 1: poses.pose_rank'],
  [
    'a pose of nobody',
    { ...kcal(docked(1)), poses: { ...kcal(docked(1)).poses!, itemNo: [2] } },
    'row 1: poses.item_no',
  ],
  ['nothing', {}, 'item_no'],
])('refuses %s, naming batch, row and column, and keeps nothing', async (_name, columns, field) => {
  const { id, lease } = await shared;
  const named = await refusal({ ...lease, batch: 1, ...columns });
  expect(named?.replace('batch 1, ', '').replace('batch 1: ', '')).toBe(field);
  expect(await staged(id)).toEqual([]);
});
let shared: ReturnType<typeof startedJob>;
beforeAll(() => {
  shared = startedJob(2);
});

test('scores and poses where the task gives none, and scores beyond its scale, are refused', async () => {
  const none = await startedJob(1, similarity({ scoreUnits: '' }));
  expect(await refusal({ ...none.lease, batch: 1, ...columnsOf([{ itemNo: 1, score: 1 }], '') })).toBe(
    'batch 1, row 1: scored.score',
  );
  const tanimoto = await startedJob(1, similarity());
  const say = (outcome: Partial<Outcome>) =>
    refusal({ ...tanimoto.lease, batch: 1, ...columnsOf([{ itemNo: 1, score: 0.5, ...outcome }], 'tanimoto') });
  expect(await say({ score: 1.01 })).toBe('batch 1, row 1: scored.score');
  expect(await say({ poses: [pose()] })).toBe('batch 1: poses');
  expect(await say({})).toBeUndefined();
});

test('a batch is taken once, whatever comes under its number; a gap is refused, with the number expected', async () => {
  const { id, jobId, lease } = await startedJob(3);
  const send = (batch: number, columns: Columns) => world.stream([{ ...lease, batch, ...columns }]);
  expect(await send(1, kcal(docked(1)))).toMatchObject({ received: 1, nextBatch: 2 });
  expect(await send(1, kcal(docked(1)))).toMatchObject({ received: 1, nextBatch: 2 });
  expect(await send(1, kcal(docked(2, { score: NaN })))).toMatchObject({ received: 1, nextBatch: 2 });
  const gap = await send(3, kcal(docked(2))).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(errorMetadataOf(gap)).toMatchObject({ next_batch: '2' });
  expect(await failureOf(Promise.reject(gap as Error))).toEqual({ code: 'failed_precondition', reason: 'BATCH_GAP' });
  expect(await refusal({ ...lease, batch: 2, ...kcal(docked(1)) })).toBe('batch 2, row 1: scored.item_no');
  expect(await refusal({ ...lease, batch: 0, ...kcal(docked(1)) })).toBe('batch');
  expect(await send(2, kcal(docked(2), docked(3)))).toMatchObject({ received: 3, nextBatch: 3 });
  await world.finish(org, id);
  expect(await posesOf(jobId)).toHaveLength(3);
});

test('a stream that broke goes on where results says, and nothing is doubled or lost', async () => {
  const { id, jobId, lease } = await startedJob(8);
  const batches = Array.from({ length: 8 }, (_one, index) => ({
    ...lease,
    batch: index + 1,
    ...kcal(docked(index + 1)),
  }));
  const broken = world.stream(
    (async function* () {
      yield* batches.slice(0, 3);
      // Cut when at least one batch is known to be there.
      while ((await staged(id)).length === 0) await sleep(5);
      throw new Error('the worker lost its connection');
    })(),
  );
  expect(await failureOf(broken)).toBeDefined();
  const { nextBatch, items } = await world.start(org, id);
  expect(nextBatch).toBeGreaterThan(1);
  expect(items).toHaveLength(8);
  // From there; or from the beginning, by someone who did not ask.
  expect(await world.stream(batches.slice(nextBatch - 1, 6))).toMatchObject({ received: 6, nextBatch: 7 });
  expect(await world.stream(batches)).toMatchObject({ received: 8, nextBatch: 9 });
  const { progress } = await world.finish(org, id);
  expect(progress?.counters).toMatchObject({ scored: 8n });
  expect(await posesOf(jobId)).toHaveLength(8);
});

test('a newer attempt begins again with batch 1; the older one has lost', async () => {
  const { id, jobId, lease } = await startedJob(2);
  await world.stream([{ ...lease, batch: 1, ...kcal(docked(1)) }]);
  expect((await world.start(org, id, 1)).nextBatch).toBe(2);
  expect((await world.start(org, id, 2)).nextBatch).toBe(1);
  expect(await posesOf(jobId)).toEqual([]);
  for (const batch of [1, 2]) {
    const late = world.stream([{ ...lease, batch, ...kcal(docked(2)) }]);
    expect(await failureOf(late)).toEqual({ code: 'aborted', reason: 'LEASE_LOST' });
  }
  const newer = await world.lease(org, id, 2);
  expect(await world.stream([{ ...newer, batch: 1, ...kcal(docked(1), docked(2)) }])).toMatchObject({ received: 2 });
});

test('a stream that stalls holds no connection and no lock: others go on', async () => {
  const { id, lease } = await startedJob(2);
  const stall = Promise.withResolvers<void>();
  const first = Promise.withResolvers<void>();
  const stalled = world.stream(
    (async function* () {
      yield { ...lease, batch: 1, ...kcal(docked(1)) };
      first.resolve();
      await stall.promise;
      yield { ...lease, batch: 2, ...kcal(docked(2)) };
    })(),
  );
  await first.promise;
  while ((await staged(id)).length === 0) await sleep(5);
  const open = await rows<{ n: number }>(
    org,
    `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'`,
  );
  expect(open).toEqual([{ n: 0 }]);
  expect((await world.start(org, id)).nextBatch).toBe(2);
  stall.resolve();
  expect(await stalled).toMatchObject({ received: 2, nextBatch: 3 });
});

test('a message beyond what the service reads is refused, and the next one is taken', async () => {
  const { id, lease } = await startedJob(1);
  const huge = world.stream([
    { ...lease, batch: 1, ...kcal(docked(1, { resultData: { text: 'x'.repeat(100 * 1024 * 1024) } })) },
  ]);
  expect((await failureOf(huge))?.code).toBe('resource_exhausted');
  expect(await world.stream([{ ...lease, batch: 1, ...kcal(docked(1)) }])).toMatchObject({ received: 1 });
  expect(await staged(id)).toHaveLength(1);
});

test('a full batch is taken in one piece, one too many is not', async () => {
  const { id, jobId, lease } = await startedJob(2500);
  const all = Array.from({ length: 2500 }, (_one, index) =>
    docked(index + 1, {
      poses: Array.from({ length: 20 }, (_pose, rank) => pose({ poseRank: rank + 1, score: -7 + rank / 100 })),
    }),
  );
  const more = kcal(...all.slice(0, -1), {
    ...all.at(-1)!,
    poses: Array.from({ length: 21 }, (_pose, rank) => pose({ poseRank: rank + 1 })),
  });
  expect(await refusal({ ...lease, batch: 1, ...more })).toBe('batch 1: poses');
  expect(await world.stream([{ ...lease, batch: 1, ...kcal(...all) }])).toMatchObject({ received: 2500, nextBatch: 2 });
  await world.finish(org, id);
  expect(
    await rows(org, 'SELECT count(*)::int AS n, min(score), max(score) FROM docking_results WHERE job_id = $1', [
      jobId,
    ]),
  ).toEqual([{ n: 50_000, min: -7, max: -6.81 }]);
});

test('a lease of another execution opens nothing', async () => {
  const one = await startedJob(1);
  const two = await startedJob(1);
  const wrong = world.stream([{ ...one.lease, taskExecutionId: two.id, batch: 1, ...kcal(docked(1)) }]);
  expect(await failureOf(wrong)).toEqual({ code: 'permission_denied', reason: 'TOKEN_INVALID' });
  const unknown = world.stream([{ ...(await world.lease(org, uuidv7(), 1)), batch: 1, ...kcal(docked(1)) }]);
  expect(await failureOf(unknown)).toEqual({ code: 'not_found', reason: 'RESOURCE_NOT_FOUND' });
});
