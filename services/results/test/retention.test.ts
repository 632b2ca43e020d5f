import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { createClient } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import { CacheService } from '@mad/proto/results';
import { userToken } from '@mad/testing';
import type { AuditRow } from '../src/db/entities/audit.ts';
import { firstBrokenLine } from '../src/runs/audit.ts';
import { failureOf } from './support/errors.ts';
import { endedAgo, finished, idAt, midMonth, pose, retentionOf, similarity, unsound } from './support/retention.ts';
import { atomAt } from './support/structures.ts';
import { onServer } from './support/tenant-database.ts';
import { bearer, docking, openWorld, rows, type Organization, type World } from './support/world.ts';

let world: World;
let org: Organization;
let retention: ReturnType<typeof retentionOf>;

beforeAll(async () => {
  world = await openWorld();
});

afterAll(() => world.close());

beforeEach(async () => {
  org = await world.organization();
  retention = retentionOf(world, org);
});

const as = () => bearer(org.token);
const hits = async (jobId: string) =>
  (await world.jobRuns.listHits({ orgId: org.orgId, jobId, includeBestPose: true }, as())).hits;
const left = async (jobId: string) =>
  (await rows<{ smiles: string }>(org, 'SELECT smiles FROM task_results WHERE job_id = $1 ORDER BY 1', [jobId])).map(
    ({ smiles }) => smiles,
  );
const partitions = async (time: number) =>
  (
    await rows<{ name: string }>(
      org,
      `SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relname LIKE '%' || $1 ORDER BY 1`,
      [new Date(time).toISOString().slice(0, 7).replace('-', '_')],
    )
  ).map(({ name }) => name.replace(/_\d{4}_\d\d$/, ''));

test('a policy is kept with its version; a repeat changes nothing; what is wrong with it is named', async () => {
  expect(await retention.get()).toMatchObject({ rules: [], version: 0 });
  const requestId = uuidv7();
  const pipelineId = uuidv7();
  const rules = [
    { keepDays: 90, keepTopHits: 100 },
    { pipelineId, keepDays: 0 },
  ];
  const set = await retention.set(rules, requestId);
  expect(set).toMatchObject({ version: 1, rules: [{ keepDays: 90, keepTopHits: 100 }, { pipelineId }] });
  expect(await retention.set(rules, requestId)).toEqual(set);
  for (const other of [[], rules.toReversed(), [rules[0]!, { ...rules[1]!, keepDays: 1 }]]) {
    const reused = { code: 'already_exists', reason: 'REQUEST_ID_REUSED' };
    expect(await failureOf(retention.set(other, requestId))).toEqual(reused);
  }
  expect(await retention.get()).toEqual(set);
  expect(await retention.set([])).toMatchObject({ version: 2, rules: [] });
  for (const [wrong, field] of [
    [[{ keepDays: -1 }], 'rules[0].keep_days'],
    [[{ keepDays: 1, keepTopHits: 10_001 }], 'rules[0].keep_top_hits'],
    [[{ keepDays: 1 }, { keepDays: 2 }], 'rules[1].pipeline_id'],
    [[{ pipelineId: 'mine', keepDays: 1 }], 'rules[0].pipeline_id'],
  ] as const) {
    expect(await failureOf(retention.set([...wrong]))).toMatchObject({ fields: [field] });
  }
  expect(await retention.get()).toMatchObject({ version: 2 });
});

test('without a policy there is nothing to apply, and who may only read applies none', async () => {
  expect(await failureOf(retention.apply())).toMatchObject({ code: 'not_found' });
  const reader = { ...org, token: await userToken({ orgId: org.orgId, permissions: ['retention.read'] }) };
  expect(await failureOf(retentionOf(world, reader).apply())).toMatchObject({ reason: 'PERMISSION_MISSING' });
  expect(await failureOf(retentionOf(world, reader).set([]))).toMatchObject({ reason: 'PERMISSION_MISSING' });
});

test('an old job keeps its best hits with poses, and says what happened to the others; a young one keeps all', async () => {
  const smiles = ['C', 'CC', 'CCC', 'CCCC', 'CCCCC', 'N'];
  const scoreOf = (one: string) => (one === 'N' ? undefined : -one.length);
  const old = await finished(world, org, { smiles, scoreOf, endedDaysAgo: 31 });
  const young = await finished(world, org, { smiles: ['O', 'OC'], endedDaysAgo: 29 });
  const before = await world.jobRuns.getJobRun({ orgId: org.orgId, jobId: old.jobId }, as());
  await retention.set([{ keepDays: 30, keepTopHits: 2 }]);
  const preview = await retention.preview();
  expect(preview).toMatchObject({ jobs: 1n, items: 4n, poses: 6n, cacheEntries: 3n, partitions: 0n });
  expect(await left(old.jobId)).toHaveLength(6);
  const run = await retention.apply();
  expect(run.deleted).toEqual(preview);

  const query = { orgId: org.orgId, jobId: old.jobId };
  const { jobRun } = await world.jobRuns.getJobRun(query, as());
  expect(jobRun).toMatchObject({ counters: before.jobRun!.counters, tasks: before.jobRun!.tasks });
  expect(jobRun!.resultsDropTime).toBeDefined();
  expect((await hits(old.jobId)).map((hit) => [hit.smiles, hit.rank, hit.bestPose?.score])).toEqual([
    ['CCCCC', 1, -5],
    ['CCCC', 2, -4],
  ]);
  for (const answer of [
    await world.jobRuns.listHits(query, as()),
    await world.jobRuns.listWorkItems(query, as()),
    await world.jobRuns.listJobEvents(query, as()),
  ]) {
    expect(answer.resultsDropTime).toEqual(jobRun!.resultsDropTime);
  }
  const [kept] = await hits(old.jobId);
  const poses = await world.jobRuns.listPoses({ ...query, itemNo: kept!.itemNo }, as());
  expect(poses.poses).toHaveLength(2);
  const gone = await failureOf(world.jobRuns.listPoses({ ...query, itemNo: 1 }, as()));
  expect(gone).toMatchObject({ code: 'not_found', reason: 'RESULTS_DROPPED' });
  const states = [];
  for await (const { state, counters } of world.jobRuns.watchJob(query, as())) states.push([state, counters]);
  expect(states).toEqual([[jobRun!.state, jobRun!.counters]]);
  const coverage = await world.statistics.getJobCoverage(query, as());
  expect(coverage.tasks[0]!.failures).toMatchObject([{ errorClass: 'IMPLAUSIBLE', items: 1n, exampleItemNo: 0 }]);
  expect((await world.statistics.getScoreHistogram(query, as())).items).toBe(5n);
  const reconciled = await world.asCatalog.reconcileJob(query);
  expect(reconciled.progress!.counters).toEqual(jobRun!.counters);

  expect(await left(young.jobId)).toHaveLength(2);
  expect(
    (await world.jobRuns.getJobRun({ ...query, jobId: young.jobId }, as())).jobRun!.resultsDropTime,
  ).toBeUndefined();
  expect(await unsound(org)).toEqual([]);
  // Nothing answers from what is gone; what was kept still does.
  expect(await finished(world, org, { smiles })).toMatchObject({ cached: 2 });
});

test('what was deleted is on record: the run, and lines of the chained audit log', async () => {
  const { jobId } = await finished(world, org, { smiles: ['C', 'CC'], endedDaysAgo: 3 });
  await retention.set([{ keepDays: 1, keepTopHits: 1 }]);
  const requestId = uuidv7();
  const run = await retention.apply(requestId);
  expect(await retention.apply(requestId)).toEqual(run);
  await retention.apply();
  const first = await retention.runs({ pageSize: 1 });
  const second = await retention.runs({ pageSize: 1, pageToken: first.nextPageToken });
  expect([...first.runs, ...second.runs].map((one) => [one.runId === requestId, one.deleted!.items])).toEqual([
    [false, 0n],
    [true, 1n],
  ]);
  expect(second.nextPageToken).toBe('');
  const log = await rows<AuditRow>(org, 'SELECT * FROM audit_log ORDER BY seq');
  expect(firstBrokenLine(log)).toBeUndefined();
  const lines = log.filter(({ action }) => action.startsWith('retention.'));
  expect(lines.map(({ action, job_id: job, metadata }) => [action, job === jobId, metadata['items']])).toEqual([
    ['retention.set_policy', false, undefined],
    ['retention.drop', true, 1],
    ['retention.apply', false, 1],
    ['retention.apply', false, 0],
  ]);
});

test('a pinned result, and one that answers a job which is kept, stay with their poses until nobody needs them', async () => {
  const first = await finished(world, org, { smiles: ['C', 'CC', 'CCC', 'CCCC'], endedDaysAgo: 100 });
  const second = await finished(world, org, { smiles: ['CC', 'CCC'], endedDaysAgo: 5 });
  expect(second.cached).toBe(2);
  const cache = createClient(CacheService, world.transport);
  const [entry] = await rows<{ input_signature: string }>(
    org,
    `SELECT input_signature FROM result_cache WHERE smiles = 'C'`,
  );
  const key = { orgId: org.orgId, task: 'vina.dock', inputSignature: entry!.input_signature };
  await cache.pinCacheEntry(key, as());
  await retention.set([{ keepDays: 30 }]);
  expect((await retention.apply()).deleted).toMatchObject({ jobs: 1n, items: 1n, poses: 2n, cacheEntries: 1n });
  expect(await left(first.jobId)).toEqual(['C', 'CC', 'CCC']);
  expect((await hits(second.jobId)).map((hit) => hit.bestPose?.score)).toEqual([-3, -2]);
  expect(await unsound(org)).toEqual([]);

  // The second job's time is over as well: one of its answers is a kept hit, and its source stays with it.
  await endedAgo(org, second.jobId, 31);
  await retention.set([{ keepDays: 30, keepTopHits: 1 }]);
  expect(await retention.preview()).toMatchObject({ jobs: 2n, items: 2n });
  await retention.apply();
  expect(await left(second.jobId)).toEqual(['CCC']);
  expect(await left(first.jobId)).toEqual(['C', 'CCC']);
  expect((await hits(second.jobId)).map((hit) => hit.bestPose?.score)).toEqual([-3]);

  await cache.unpinCacheEntry(key, as());
  await retention.set([{ keepDays: 30 }]);
  await retention.apply();
  expect([await left(first.jobId), await left(second.jobId)]).toEqual([[], []]);
  expect(await retention.preview()).toMatchObject({ jobs: 0n, items: 0n });
  expect(await unsound(org)).toEqual([]);
});

test('pipelines have rules of their own; where nobody noted the pipeline, the most generous holds', async () => {
  const [precious, quick] = [uuidv7(), uuidv7()];
  const jobs = {
    precious: await finished(world, org, { smiles: ['C'], pipelineId: precious, endedDaysAgo: 50 }),
    quick: await finished(world, org, { smiles: ['CC'], pipelineId: quick, endedDaysAgo: 10 }),
    other: await finished(world, org, { smiles: ['CCC'], pipelineId: uuidv7(), endedDaysAgo: 50 }),
    unknown: await finished(world, org, { smiles: ['CCCC'], endedDaysAgo: 50 }),
  };
  const rest = async () =>
    Object.fromEntries(
      await Promise.all(Object.entries(jobs).map(async ([k, { jobId }]) => [k, (await left(jobId)).length])),
    );
  await retention.set([{ keepDays: 20 }, { pipelineId: precious, keepDays: 0 }, { pipelineId: quick, keepDays: 5 }]);
  await retention.apply();
  expect(await rest()).toEqual({ precious: 1, quick: 0, other: 0, unknown: 1 });
  await retention.set([{ keepDays: 20 }, { pipelineId: precious, keepDays: 40 }]);
  await retention.apply();
  expect(await rest()).toEqual({ precious: 0, quick: 0, other: 0, unknown: 0 });
});

test('a job that has not ended is left alone, however old it is', async () => {
  const { jobId } = await world.materialize(org, { plans: [docking()], smiles: ['C'], jobId: idAt(midMonth(-30)) });
  await retention.set([{ keepDays: 1 }]);
  expect((await retention.apply()).deleted).toMatchObject({ jobs: 0n, partitions: 0n });
  expect(await left(jobId)).toEqual(['C']);
});

test('a month all of whose jobs are over loses its partitions at once; kept hits keep their poses in a new one', async () => {
  const [bare, mixed] = [midMonth(-8), midMonth(-7)];
  const one = await finished(world, org, { jobId: idAt(bare), smiles: ['C', 'CC', 'CCC'], endedDaysAgo: 200 });
  const screen = { jobId: idAt(mixed), plans: [similarity()], smiles: ['CCCCN'], scoreOf: () => 0.5 };
  await finished(world, org, { ...screen, endedDaysAgo: 190 });
  const late = await finished(world, org, { jobId: idAt(mixed), smiles: ['O', 'OO'], endedDaysAgo: 10 });
  await retention.set([{ keepDays: 30, keepTopHits: 1 }]);
  const preview = await retention.preview();
  expect(preview).toMatchObject({ jobs: 2n, items: 2n, poses: 4n, partitions: 2n });
  expect((await retention.apply()).deleted).toEqual(preview);
  expect(await partitions(bare)).toEqual(['docking_results']);
  expect(await partitions(mixed)).toEqual(['docking_results', 'job_events']);
  expect((await hits(one.jobId)).map((hit) => hit.bestPose?.score)).toEqual([-3]);
  expect(await hits(late.jobId)).toHaveLength(2);

  await endedAgo(org, late.jobId, 40);
  await retention.set([{ keepDays: 30 }]);
  await retention.apply();
  expect(await partitions(bare)).toEqual(['docking_results']);
  expect(await partitions(mixed)).toEqual([]);
  expect(await rows(org, 'SELECT count(*)::int AS n FROM docking_results')).toEqual([{ n: 0 }]);
  // A job that was made then and is begun only now finds its home.
  const again = await finished(world, org, { jobId: idAt(mixed), smiles: ['S'] });
  expect((await hits(again.jobId)).map((hit) => hit.bestPose?.score)).toEqual([-1]);
  expect(await unsound(org)).toEqual([]);
});

test('a partition that somebody reads is left for later, and the run goes on with it', async () => {
  const time = midMonth(-5);
  await finished(world, org, { jobId: idAt(time), smiles: ['C'], endedDaysAgo: 100 });
  await retention.set([{ keepDays: 30 }]);
  const requestId = uuidv7();
  await onServer(org.database.adminUrl, async (client) => {
    await client.query('BEGIN');
    await client.query('SELECT count(*) FROM results.docking_results');
    expect((await failureOf(retention.apply(requestId)))!.code).not.toBe('internal');
    await client.query('ROLLBACK');
  });
  expect((await retention.runs()).runs).toMatchObject([{ runId: requestId, deleted: { items: 1n } }]);
  expect((await retention.runs()).runs[0]!.endTime).toBeUndefined();
  expect((await retention.apply(requestId)).deleted).toMatchObject({ jobs: 1n, items: 1n, partitions: 2n });
  expect(await partitions(time)).toEqual([]);
});

test('a job that is made while results are dropped has no answer without its source', async () => {
  const smiles = Array.from({ length: 40 }, (_, index) => 'C'.repeat(index + 1));
  await finished(world, org, { smiles, endedDaysAgo: 50, plans: [docking({ chunkSize: 40 })] });
  await retention.set([{ keepDays: 30 }]);
  const [, ...others] = await Promise.all([
    retention.apply(),
    ...[1, 2, 3, 4].map(() => finished(world, org, { smiles, plans: [docking({ chunkSize: 40 })] })),
  ]);
  expect(others).toHaveLength(4);
  expect(await unsound(org)).toEqual([]);
});

test('structures go when no pose is in their object any more, and a job that is being exported waits', async () => {
  const made = await world.materialize(org, { plans: [docking()], smiles: ['CCC', 'CC'] });
  const molBlock = atomAt(1);
  for (const { taskExecutionId } of made.runnable) {
    await world.run(org, taskExecutionId, (smiles) => ({
      score: -smiles.length,
      poses: [{ ...pose, score: -smiles.length, molBlock }],
    }));
  }
  const { jobId } = made;
  await endedAgo(org, jobId, 100);
  const objects = (): Promise<{ state: string; n: number }[]> =>
    rows(org, 'SELECT state, count(*)::int AS n FROM stored_objects GROUP BY state ORDER BY state');
  const all = (await objects())[0]!.n;

  await rows(
    org,
    `INSERT INTO exports (export_id, job_id, task_id, format, snapshot_seq, part_rows) VALUES (gen_random_uuid(), $1, 'dock', 'csv', 1, 1)`,
    [jobId],
  );
  await retention.set([{ keepDays: 30, keepTopHits: 1 }]);
  expect(await retention.preview()).toMatchObject({ jobs: 0n });
  // Nobody goes on with it.
  await rows(org, `UPDATE exports SET created_at = now() - interval '2 days'`);
  expect((await retention.apply()).deleted).toMatchObject({ jobs: 1n, items: 1n });
  expect(await left(jobId)).toEqual(['CCC']);
  expect((await objects()).find(({ state }) => state === 'kept')).toBeDefined();
  const { hits: kept } = await world.jobRuns.listHits({ orgId: org.orgId, jobId, includeBestPose: true }, as());
  expect(kept).toMatchObject([{ smiles: 'CCC', bestPose: { hasStructure: true } }]);

  await retention.set([{ keepDays: 30 }]);
  expect((await retention.apply()).deleted).toMatchObject({ items: 1n });
  expect(await left(jobId)).toEqual([]);
  const [gone, ...more] = await objects();
  // The sweeper may have been there already.
  expect([undefined, 'dropped']).toContain(gone?.state);
  expect([more, (gone?.n ?? 0) <= all]).toEqual([[], true]);
});
