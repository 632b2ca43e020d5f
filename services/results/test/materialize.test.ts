import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { failureOf } from './support/errors.ts';
import { newSmiles } from './support/smiles.ts';
import { openWorld, rows, similarity, type Organization, type World } from './support/world.ts';

let world: World;
let org: Organization;

beforeAll(async () => {
  world = await openWorld();
  org = await world.organization();
});

afterAll(() => world.close());

/** Molecules nobody computed before in this file. */

test('materialization is idempotent, also five at the same time, also in a database that has no partitions', async () => {
  org = await world.organization();
  const jobId = uuidv7();
  const options = { jobId, smiles: newSmiles(9) };
  const answers = await Promise.all(Array.from({ length: 5 }, () => world.materialize(org, options)));
  const again = await world.materialize(org, options);
  for (const answer of answers) {
    expect(answer.progress).toEqual(again.progress);
    expect(answer.runnable).toEqual(again.runnable);
  }
  expect(again.runnable).toHaveLength(3);
  expect(await rows(org, 'SELECT count(*)::int AS n FROM task_results WHERE job_id = $1', [jobId])).toEqual([{ n: 9 }]);
});

test('input that comes in many messages, and is cut on the way, arrives whole', async () => {
  world.around.cutInputsAfter = 1500;
  const before = world.around.inputCalls;
  const smiles = Array.from(
    { length: 2500 },
    (_one, index) => `C${'O'.repeat(index % 300)}.${'N'.repeat(1 + Math.floor(index / 300))}`,
  );
  const made = await world.materialize(org, { smiles, plans: [similarity({ chunkSize: 1000 })] });
  expect(world.around.inputCalls - before).toBe(2);
  expect(made.progress?.counters?.requested).toBe(2500n);
  expect(made.runnable).toHaveLength(3);
  const stored = await rows<{ smiles: string }>(
    org,
    'SELECT smiles FROM task_results WHERE job_id = $1 ORDER BY item_no',
    [made.jobId],
  );
  expect(stored.map((row) => row.smiles)).toEqual(smiles);
});

test('SMILES with backslashes, and anything else that SQL or COPY could misread, is stored as it is', async () => {
  const smiles = ['F/C=C\\F', 'C\\N', "C';DROP", 'C"%_$1'];
  const made = await world.materialize(org, { smiles });
  const stored = await rows<{ smiles: string }>(
    org,
    'SELECT smiles FROM task_results WHERE job_id = $1 ORDER BY item_no',
    [made.jobId],
  );
  expect(stored.map((row) => row.smiles)).toEqual(smiles);
});

test.each([
  ['a job id that is no UUIDv7', { jobId: '6f9619ff-8b86-4d11-b42d-00cf4fc964ff' }, ['job_id']],
  ['a job id of the future', { jobId: 'ffffffff-ffff-7000-8000-000000000000' }, ['job_id']],
  ['a task twice', { plans: [similarity(), similarity()] }, ['tasks[1].task_id']],
  ['a task before its upstream', { plans: [similarity({ dependsOn: ['later'] })] }, ['tasks[0].depends_on']],
  ['seed 0', { plans: [similarity({ parameters: { seed: 0 } })] }, ['tasks[0].parameters.seed']],
])('refuses %s', async (_name, options, fields) => {
  expect(await failureOf(world.materialize(org, options))).toEqual({ code: 'invalid_argument', fields });
});

test('refuses input of another length than announced, and leaves nothing behind', async () => {
  for (const inputCount of [2, 4]) {
    const jobId = uuidv7();
    const failure = await failureOf(world.materialize(org, { jobId, smiles: newSmiles(3), inputCount }));
    expect(failure).toEqual({ code: 'failed_precondition', reason: 'STATE_CONFLICT' });
    expect(await rows(org, 'SELECT 1 FROM jobs WHERE job_id = $1', [jobId])).toEqual([]);
  }
});

test('an organization without database is told so; nothing is made', async () => {
  const nobody = { ...org, orgId: uuidv7() };
  const expected = { code: 'failed_precondition', reason: 'TENANT_NOT_PROVISIONED' };
  expect(await failureOf(world.materialize(nobody))).toEqual(expected);
  expect(await failureOf(world.asCatalog.reconcileJob({ orgId: nobody.orgId, jobId: uuidv7() }))).toEqual(expected);
});
