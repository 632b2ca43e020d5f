import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
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

/** Rows of the tables of items that were looked at so far, by their indexes or without. */
async function rowsRead(): Promise<number> {
  // A session tells what it read when it ends.
  await rows(
    org,
    'SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()',
  );
  const [read] = await rows<{ read: string }>(
    org,
    `SELECT (SELECT sum(idx_tup_read) FROM pg_stat_all_indexes WHERE relname IN ('staged_results', 'task_results'))
       + (SELECT sum(seq_tup_read) FROM pg_stat_all_tables WHERE relname IN ('staged_results', 'task_results')) AS read`,
  );
  return Number(read!.read);
}

const run = (id: string): Promise<void> =>
  world.run(org, id, (_smiles, itemNo) => ({
    score: -itemNo / 1_000,
    poses: [{ replicate: 1, poseRank: 1, score: -itemNo / 1_000, rawScore: -1, rmsdLb: 0, rmsdUb: 0 }],
  }));

async function makeJob(count: number): Promise<string[]> {
  const job = await world.materialize(org, { smiles: newSmiles(count), plans: [docking({ chunkSize: ITEMS })] });
  return job.runnable.map(({ taskExecutionId }) => taskExecutionId);
}

async function runJob(): Promise<void> {
  for (const id of await makeJob(ITEMS)) await run(id);
}

test('an execution costs what its items are, also where Postgres has statistics of another one alone', async () => {
  await runJob();
  await rows(org, 'ANALYZE');
  const before = await rowsRead();
  await runJob();
  // Joined each with each it were 9 million.
  expect((await rowsRead()) - before).toBeLessThan(50 * ITEMS);
});

test('an execution that Postgres has no statistics of costs no more where it has them of the rest of its job', async () => {
  const [known, hidden] = (await makeJob(2 * ITEMS)) as [string, string];
  await run(known);
  await rows(org, 'VACUUM ANALYZE');
  // Under a name that was not there when they were made.
  const renamed = uuidv7();
  const { columns } = (
    await rows<{ columns: string }>(
      org,
      `SELECT string_agg(quote_ident(attname), ', ') AS columns FROM pg_attribute
       WHERE attrelid = 'results.task_executions'::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('task_execution_id', 'chunk_no')`,
    )
  )[0]!;
  await rows(
    org,
    `INSERT INTO task_executions (task_execution_id, chunk_no, ${columns})
     SELECT $2, chunk_no + 1, ${columns} FROM task_executions WHERE task_execution_id = $1`,
    [hidden, renamed],
  );
  await rows(org, 'UPDATE task_results SET task_execution_id = $2 WHERE task_execution_id = $1', [hidden, renamed]);
  const before = await rowsRead();
  await run(renamed);
  expect((await rowsRead()) - before).toBeLessThan(50 * ITEMS);
});
