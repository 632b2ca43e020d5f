import { readdir, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { Code, ConnectError } from '@connectrpc/connect';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { sleep, uuidv7 } from '@mad/process';
import { columnsOf, type Outcome } from './support/columns.ts';
import { atomAt, readSdf } from './support/structures.ts';
import { newSmiles } from './support/smiles.ts';
import { bearer, docking, openWorld, rows, similarity, type Organization, type World } from './support/world.ts';

let world: World;
let org: Organization;

beforeAll(async () => {
  world = await openWorld();
  org = await world.organization();
});

afterAll(() => world.close());

/** Two replicas with two poses each; the best is replica 2's first. Each pose has its place. */
const docked = (itemNo: number, best = -8): Outcome => ({
  itemNo,
  score: best,
  poses: [1, 2].flatMap((replicate) =>
    [1, 2].map((poseRank) => ({
      replicate,
      poseRank,
      score: best + (replicate === 2 ? 0 : 0.5) + poseRank - 1,
      rawScore: -5,
      rmsdLb: 0,
      rmsdUb: 0,
      molBlock: atomAt(itemNo * 100 + replicate * 10 + poseRank),
    })),
  ),
});

async function dockedJob(smiles: string[], changes: { plans?: ReturnType<typeof docking>[]; names?: string[] } = {}) {
  const molecules = smiles.map((one, index) => ({
    moleculeId: uuidv7(),
    smiles: one,
    name: changes.names?.[index] ?? `molecule ${index + 1}`,
  }));
  const job = await world.materialize(org, { molecules, plans: changes.plans ?? [docking({ chunkSize: 100 })] });
  return { jobId: job.jobId, executions: job.runnable.map(({ taskExecutionId }) => taskExecutionId) };
}

/** All items scored; item n scores n − 10. */
async function finishedJob(count: number, names?: string[]) {
  const smiles = newSmiles(count);
  const job = await dockedJob(smiles, { names });
  await world.run(org, job.executions[0]!, (_smiles, itemNo) => docked(itemNo, itemNo - 10));
  return { ...job, smiles };
}

const as = () => bearer(org.token);

async function download(request: Parameters<typeof world.poses.downloadPoses>[0]) {
  const pieces: Uint8Array[] = [];
  let last = { poses: 0n, withoutStructure: 0n };
  for await (const { content, ...counts } of world.poses.downloadPoses({ orgId: org.orgId, ...request }, as())) {
    pieces.push(content);
    last = counts;
  }
  return { records: readSdf(Buffer.concat(pieces).toString()), ...last };
}

async function failureOf(call: Promise<unknown>): Promise<ConnectError> {
  return call.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: unknown) => ConnectError.from(error),
  );
}

const placeOf = (structure: string): number => Number(structure.split('\n')[4]!.slice(0, 10));

async function files(): Promise<string[]> {
  const folder = join(world.objectFolder, 'orgs', org.orgId, 'poses');
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

test('a batch of structures is one object, and each pose is read alone from it', async () => {
  const { jobId, smiles } = await finishedJob(3, ['β-blocker, "the" one']);
  const noted = await rows<{ size_bytes: string; state: string }>(
    org,
    'SELECT size_bytes::int, state FROM stored_objects WHERE owner_id = $1',
    [jobId],
  );
  expect(noted).toEqual([{ size_bytes: expect.any(Number), state: 'kept' }]);
  const best = await world.poses.getPose({ orgId: org.orgId, jobId, itemNo: 1 }, as());
  expect(best.pose).toMatchObject({ replicate: 2, poseRank: 1, score: -9, hasStructure: true });
  expect(best).toMatchObject({ moleculeName: 'β-blocker, "the" one', smiles: smiles[0] });
  const [record] = readSdf(best.sdf);
  expect(placeOf(record!.structure)).toBe(121);
  expect(record!.title).toBe('β-blocker, "the" one');
  expect(Object.fromEntries(record!.data)).toMatchObject({ smiles: smiles[0], pose_score: '-9', item_no: '1' });
  const other = await world.poses.getPose({ orgId: org.orgId, jobId, itemNo: 3, replicate: 1, poseRank: 2 }, as());
  expect(placeOf(readSdf(other.sdf)[0]!.structure)).toBe(312);
});

test('the best poses of a job are one SD file, best first; a filter, or a page of hits, selects', async () => {
  const { jobId } = await finishedJob(5);
  const all = await download({ jobId });
  expect(all.records.map(({ structure }) => placeOf(structure))).toEqual([121, 221, 321, 421, 521]);
  expect(all).toMatchObject({ poses: 5n, withoutStructure: 0n });
  expect(all.records.map(({ data }) => data.get('rank'))).toEqual(['1', '2', '3', '4', '5']);
  const filtered = await download({ jobId, filter: 'score <= -7 AND rank <= 2' });
  expect(filtered.records.map(({ title }) => title)).toEqual(['molecule 1', 'molecule 2']);
  const page = await download({ jobId, itemNo: [4, 2] });
  expect(page.records.map(({ title }) => title)).toEqual(['molecule 2', 'molecule 4']);
});

test('a cached hit shows the pose of its source, in its own job’s words', async () => {
  const first = await finishedJob(2);
  const again = await dockedJob(first.smiles, { names: ['other name', ''] });
  expect(again.executions).toEqual([]);
  const { sdf, pose } = await world.poses.getPose({ orgId: org.orgId, jobId: again.jobId, itemNo: 2 }, as());
  expect(pose).toMatchObject({ replicate: 2, poseRank: 1, hasStructure: true });
  const [record] = readSdf(sdf);
  expect(placeOf(record!.structure)).toBe(221);
  expect(record!.data.get('reused_from_job_id')).toBe(first.jobId);
  const { records } = await download({ jobId: again.jobId });
  expect(records.map(({ title }) => title)).toEqual(['other name', '']);
});

test('a source whose structures are gone answers no later job', async () => {
  const { jobId, smiles } = await finishedJob(1);
  await rows(org, `UPDATE stored_objects SET state = 'dropped' WHERE owner_id = $1`, [jobId]);
  const again = await dockedJob(smiles);
  expect(again.executions).toHaveLength(1);
  const missed = await rows(org, 'SELECT cache_miss FROM task_results WHERE job_id = $1', [again.jobId]);
  expect(missed).toEqual([{ cache_miss: 'output_missing' }]);
});

test('poses without structures stay what they were: they answer later jobs, and say that there is none', async () => {
  const smiles = newSmiles(2);
  const { jobId, executions } = await dockedJob(smiles);
  await world.run(org, executions[0]!, (_smiles, itemNo) => {
    const outcome = docked(itemNo);
    return { ...outcome, poses: outcome.poses!.map(({ molBlock: _structure, ...pose }) => pose) };
  });
  expect((await dockedJob(smiles)).executions).toEqual([]);
  expect(await failureOf(world.poses.getPose({ orgId: org.orgId, jobId, itemNo: 1 }, as()))).toMatchObject({
    code: Code.NotFound,
    message: expect.stringContaining('structure'),
  });
  expect(await download({ jobId })).toMatchObject({ records: [], poses: 0n, withoutStructure: 2n });
});

test('what a lost attempt wrote is removed, and what the next one writes stays', async () => {
  const { jobId, executions } = await dockedJob(newSmiles(2));
  const id = executions[0]!;
  await world.start(org, id);
  await world.append(org, id, [docked(1)]);
  const [before] = await rows<{ object_id: string }>(org, 'SELECT object_id FROM stored_objects WHERE owner_id = $1', [
    jobId,
  ]);
  expect((await files()).some((file) => file.endsWith(before!.object_id))).toBe(true);
  await world.start(org, id, 2);
  await world.append(org, id, [docked(1), docked(2)], 2);
  await world.finish(org, id, 2);
  for (let round = 0; (await files()).some((file) => file.endsWith(before!.object_id)); round += 1) {
    if (round === 200) throw new Error('the lost attempt’s object is still there');
    await sleep(50);
  }
  expect((await download({ jobId })).records).toHaveLength(2);
});

test('an object whose writer died between it and its rows is swept when the next job begins', async () => {
  const { jobId, executions } = await dockedJob(newSmiles(1));
  const id = executions[0]!;
  await world.start(org, id);
  // As a process leaves it that was killed between the object and the row.
  const objectId = uuidv7();
  await rows(
    org,
    `INSERT INTO stored_objects (object_id, purpose, owner_id, task_execution_id, created_at)
      VALUES ($1, 'poses', $2, $3, now() - interval '11 minutes')`,
    [objectId, jobId, id],
  );
  // Any job that begins has it swept.
  await world.materialize(org, { smiles: newSmiles(1) });
  for (let round = 0; ; round += 1) {
    const left = await rows(org, 'SELECT FROM stored_objects WHERE object_id = $1', [objectId]);
    if (left.length === 0) break;
    if (round === 200) throw new Error('the note is still there');
    await sleep(50);
  }
  await world.append(org, id, [docked(1)]);
  await world.finish(org, id);
  expect((await download({ jobId })).records).toHaveLength(1);
});

test('a refused batch leaves no object, and a repeated one is kept once', async () => {
  const { jobId, executions } = await dockedJob(newSmiles(2));
  const id = executions[0]!;
  await world.start(org, id);
  const lease = await world.lease(org, id, 1);
  const bad = columnsOf([{ ...docked(1), score: Number.NaN }], 'kcal/mol');
  expect(await failureOf(world.stream([{ ...lease, batch: 1, ...bad }]))).toMatchObject({ code: Code.InvalidArgument });
  const good = { ...lease, batch: 1, ...columnsOf([docked(1), docked(2)], 'kcal/mol') };
  await world.stream([good]);
  await world.stream([good]);
  await world.finish(org, id);
  for (let round = 0; ; round += 1) {
    const notes = await rows<{ state: string }>(org, 'SELECT state FROM stored_objects WHERE owner_id = $1', [jobId]);
    if (notes.length === 1) break;
    if (round === 200) throw new Error(`still noted: ${JSON.stringify(notes)}`);
    await sleep(50);
  }
  expect((await download({ jobId })).records).toHaveLength(2);
});

test.each([
  ['text', 'not a mol block', 'fourth line'],
  ['a cut one', atomAt(1).replace('M  END\n', ''), 'M  END'],
  ['a record’s end inside', atomAt(1).replace('M  END', '$$$$$$$$\nM  END'), '$$$$'],
  ['too long', `${atomAt(1)}${' '.repeat(100_000)}`, '100000'],
  ['Unicode', atomAt(1).replace('MAD', 'МАД'), 'ASCII'],
])('a structure that is %s is refused with its row', async (_what, molBlock, said) => {
  const { executions } = await dockedJob(newSmiles(1));
  const id = executions[0]!;
  await world.start(org, id);
  const outcome = docked(1);
  outcome.poses![2] = { ...outcome.poses![2]!, molBlock };
  const failure = await failureOf(world.append(org, id, [outcome]));
  expect(failure).toMatchObject({ code: Code.InvalidArgument });
  expect(failure.message).toContain('batch 1, row 3: poses.mol_block');
  expect(failure.message).toContain(said);
});

test('a structure that is missing or damaged in the store is told as such', async () => {
  const { jobId } = await finishedJob(1);
  const [{ object_id: objectId } = { object_id: '' }] = await rows<{ object_id: string }>(
    org,
    'SELECT object_id FROM stored_objects WHERE owner_id = $1',
    [jobId],
  );
  const file = (await files()).find((one) => one.endsWith(objectId))!;
  await truncate(file, 10);
  const asked = () => failureOf(world.poses.getPose({ orgId: org.orgId, jobId, itemNo: 1 }, as()));
  expect(await asked()).toMatchObject({ code: Code.DataLoss, message: expect.stringContaining('damaged') });
  await rm(file);
  expect(await asked()).toMatchObject({ code: Code.DataLoss, message: expect.stringContaining('missing') });
});

test('what cannot be asked for is refused by name', async () => {
  const { jobId } = await finishedJob(1);
  const ask = (request: object) =>
    failureOf(world.poses.getPose({ orgId: org.orgId, jobId, itemNo: 1, ...request }, as()));
  expect(await ask({ replicate: 1 })).toMatchObject({ code: Code.InvalidArgument });
  expect(await ask({ replicate: 3, poseRank: 1 })).toMatchObject({ code: Code.NotFound });
  expect(await ask({ itemNo: 2 })).toMatchObject({ code: Code.NotFound });
  expect(await failureOf(download({ jobId, filter: 'score' }))).toMatchObject({ code: Code.InvalidArgument });
  expect(await failureOf(download({ jobId, itemNo: [1], filter: 'rank <= 1' }))).toMatchObject({
    code: Code.InvalidArgument,
  });
  const screen = await world.materialize(org, { smiles: newSmiles(1), plans: [similarity()] });
  await world.run(org, screen.runnable[0]!.taskExecutionId, () => ({ score: 0.5 }));
  expect(await download({ jobId: screen.jobId })).toMatchObject({ records: [], withoutStructure: 1n });
});
