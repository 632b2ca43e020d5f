import { afterEach, expect, test } from '@jest/globals';
import { SECOND_MS, sleep } from '@mad/process';
import type { Engine, ItemOutcome } from '../src/engines/engine.ts';
import { leaseLoop } from '../src/lease-loop.ts';
import { configFor, contextFor, planned, startNeighbours, type Neighbours } from './neighbours.ts';

/** What does not fit into a message fits into none of the next ones either: it ends, by name, and is not tried for ever. */

let closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.toReversed()) await close();
  closers = [];
});

const docker = (outcomes: (itemNo: number) => ItemOutcome): Engine => ({
  name: 'rdkit',
  tasks: ['rdkit.properties'],
  scoreUnits: () => 'kcal/mol',
  version: async () => '1',
  available: async () => ({ ok: true }),
  close: async () => undefined,
  async run({ items }, emit) {
    for (const { itemNo } of items) await emit(outcomes(itemNo));
  },
});

/** A scored item with so many poses of a structure of so many characters. */
const docked = (itemNo: number, poses: number, length: number): ItemOutcome => ({
  itemNo,
  status: 'scored',
  score: -8,
  resultData: {},
  poses: Array.from({ length: poses }, (_one, index) => ({
    replicate: 1,
    poseRank: index + 1,
    score: -8,
    rawScore: -8,
    rmsdLb: 0,
    rmsdUb: 0,
    molBlock: 'x'.repeat(length),
  })),
});

async function run(engine: Engine, smiles: string[], readMaxBytes?: number): Promise<Neighbours> {
  const neighbours = await startNeighbours(readMaxBytes);
  const context = await contextFor(await configFor(neighbours.address), engine);
  neighbours.waiting.push(planned({ smiles }));
  const loop = leaseLoop(context);
  closers.push(
    () => neighbours.close(),
    () => context.close(),
    () => loop.close(),
  );
  for (const end = Date.now() + 20 * SECOND_MS; neighbours.finished.length === 0; await sleep(10)) {
    if (Date.now() > end) throw new Error('the task was never finished');
  }
  return neighbours;
}

test('an item with more to say than a message holds fails alone, by name', async () => {
  const engine = docker((itemNo) => (itemNo === 2 ? docked(itemNo, 90, 60_000) : docked(itemNo, 9, 60_000)));
  const neighbours = await run(engine, ['C', 'CC', 'CCC']);
  expect(neighbours.finished[0]).toMatchObject({ errorClass: '' });
  expect(neighbours.outcomes().toSorted((a, b) => a.itemNo - b.itemNo)).toMatchObject([
    { itemNo: 1, errorClass: '' },
    {
      itemNo: 2,
      errorClass: 'ENGINE_FAILED',
      errorMessage: expect.stringMatching(/takes 54\d{5} bytes with 90 poses, and 4128768 can be kept/),
    },
    { itemNo: 3, errorClass: '' },
  ]);
});

test('outcomes that fit one by one and not together go in several batches, by their bytes', async () => {
  const words = '☃'.repeat(4_000);
  const engine = docker((itemNo) => ({ itemNo, status: 'failed', errorClass: 'TIMEOUT', errorMessage: words }));
  const neighbours = await run(
    engine,
    Array.from({ length: 400 }, () => 'C'),
    1_200_000,
  );
  expect(neighbours.finished[0]).toMatchObject({ errorClass: '' });
  expect(neighbours.outcomes()).toHaveLength(400);
});

test('a batch that results takes in no size of its own fails the execution in its words', async () => {
  const neighbours = await run(
    docker((itemNo) => docked(itemNo, 9, 60_000)),
    ['C'],
    400_000,
  );
  expect(neighbours.finished[0]).toMatchObject({
    errorClass: 'ENGINE_FAILED',
    errorMessage: expect.stringMatching(/its results are refused: Received message larger than max \(\d+ vs 400000\)/),
  });
});

test('work that fits into no message fails its execution, by name', async () => {
  const smiles = Array.from({ length: 50 }, () => 'C'.repeat(100_000));
  const neighbours = await run(
    docker((itemNo) => docked(itemNo, 1, 1)),
    smiles,
  );
  expect(neighbours.started).toHaveLength(1);
  expect(neighbours.finished[0]).toMatchObject({
    errorClass: 'ENGINE_FAILED',
    errorMessage: expect.stringContaining('its work cannot be taken: Received message larger than max'),
  });
});
