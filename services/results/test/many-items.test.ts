import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { newSmiles } from './support/smiles.ts';
import { docking, openWorld, rows, type Organization, type World } from './support/world.ts';

const ITEMS = 3_000;

let world: World;
let org: Organization;

beforeAll(async () => {
  world = await openWorld();
  org = await world.organization();
});

afterAll(() => world.close());

/** Entries that indexes of the tables of items have given so far. */
async function entriesRead(): Promise<number> {
  // A session tells what it read when it ends.
  await rows(
    org,
    'SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()',
  );
  const [read] = await rows<{ entries: string }>(
    org,
    `SELECT sum(idx_tup_read) AS entries FROM pg_stat_all_indexes WHERE relname IN ('staged_results', 'task_results')`,
  );
  return Number(read!.entries);
}

async function runJob(): Promise<void> {
  const job = await world.materialize(org, { smiles: newSmiles(ITEMS), plans: [docking({ chunkSize: ITEMS })] });
  for (const { taskExecutionId } of job.runnable) {
    await world.run(org, taskExecutionId, (_smiles, itemNo) => ({
      score: -itemNo / 1_000,
      poses: [{ replicate: 1, poseRank: 1, score: -itemNo / 1_000, rawScore: -1, rmsdLb: 0, rmsdUb: 0 }],
    }));
  }
}

test('an execution costs what its items are, also where Postgres has statistics of another one alone', async () => {
  await runJob();
  await rows(org, 'ANALYZE');
  const before = await entriesRead();
  await runJob();
  // Joined each with each it were 9 million.
  expect((await entriesRead()) - before).toBeLessThan(50 * ITEMS);
});
