import { afterAll, afterEach, beforeAll, beforeEach, expect, jest, test } from '@jest/globals';
import { DAY_MS, uuidv7 } from '@mad/process';
import { JobState } from '@mad/proto/catalog';
import { columnsOf } from './support/columns.ts';
import { failureOf } from './support/errors.ts';
import { newSmiles } from './support/smiles.ts';
import { openWorld, rows, similarity, type Organization, type World } from './support/world.ts';

let world: World;
let org: Organization;

beforeAll(async () => {
  world = await openWorld({ cacheTtlDays: 30 });
});

beforeEach(async () => {
  org = await world.organization();
});

afterEach(() => {
  jest.useRealTimers();
});

afterAll(() => world.close());

/** The clock on the wall of results' machine steps; what counts time goes on. */
function step(ms: number): void {
  const now = Date.now() + ms;
  jest.useRealTimers();
  jest.useFakeTimers({
    now,
    doNotFake: [
      'hrtime',
      'nextTick',
      'performance',
      'queueMicrotask',
      'setImmediate',
      'clearImmediate',
      'setInterval',
      'clearInterval',
      'setTimeout',
      'clearTimeout',
    ],
  });
}

const UNIT = 'tanimoto';

test.each([
  ['forward', DAY_MS],
  ['back', -DAY_MS],
])('a clock that steps a day %s in the middle of a stream loses and doubles nothing', async (_to, ms) => {
  const { jobId, runnable } = await world.materialize(org, { smiles: newSmiles(4), plans: [similarity()] });
  const id = runnable[0]!.taskExecutionId;
  const held = await world.lease(org, id, 1);
  await world.start(org, id);
  const batchOf = (batch: number) => ({
    ...held,
    batch,
    ...columnsOf([{ itemNo: batch, score: batch / 10 }], UNIT),
  });
  async function* stepping() {
    yield batchOf(1);
    yield batchOf(2);
    step(ms);
    yield batchOf(3);
    yield batchOf(4);
  }
  // Its lease may be over by the stepped clock, or not have begun: then it says so, and the stream goes on where it was.
  const failure = await failureOf(world.stream(stepping()));
  if (failure !== undefined) expect(failure.code).not.toBe('internal');
  step(-ms);
  jest.useRealTimers();
  const renewed = await world.lease(org, id, 1);
  const said = await world.stream([1, 2, 3, 4].map((batch) => ({ ...batchOf(batch), ...renewed })));
  expect(said).toMatchObject({ received: 4, nextBatch: 5 });
  const { progress } = await world.finish(org, id);
  expect(progress).toMatchObject({ jobId, state: JobState.COMPLETED });
  expect(
    await rows(org, 'SELECT item_no, score FROM task_results WHERE job_id = $1 ORDER BY item_no', [jobId]),
  ).toEqual([1, 2, 3, 4].map((item) => ({ item_no: item, score: item / 10 })));
});

test('a clock that is ahead for a moment takes no result from later jobs', async () => {
  const smiles = newSmiles(2);
  const { runnable } = await world.materialize(org, { smiles });
  await world.run(org, runnable[0]!.taskExecutionId, () => ({ score: 0.5 }));
  const jobId = uuidv7();
  step(40 * DAY_MS);
  // By that clock everything has expired: it would be computed once more, and nothing is thrown away.
  const ahead = await world.materialize(org, { smiles, jobId });
  jest.useRealTimers();
  expect(ahead.progress?.counters).toMatchObject({ cached: 0n, pending: 2n });
  const after = await world.materialize(org, { smiles });
  expect(after.progress?.counters).toMatchObject({ requested: 2n, cached: 2n });
});
