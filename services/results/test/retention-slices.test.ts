import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { createClient } from '@connectrpc/connect';
import { serviceTokenInterceptor } from '@mad/auth';
import { createLogger, uuidv7 } from '@mad/process';
import { CacheService } from '@mad/proto/results';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';
import { openTenants, type Tenants } from '@mad/tenancy';
import { serviceToken } from '@mad/testing';
import { resultsEntities, SCHEMA } from '../src/db/schema.ts';
import { beginRun, standingOf, step } from '../src/runs/retention.ts';
import { failureOf } from './support/errors.ts';
import { endedAgo, finished, idAt, midMonth, retentionOf, unsound } from './support/retention.ts';
import { bearer, docking, openWorld, rows, type Organization, type World } from './support/world.ts';

/** Retention of a job that is far larger than what one statement may take. */

const SLICE_ROWS = 500;
const ITEMS = 4000;

let world: World;
let org: Organization;
let retention: ReturnType<typeof retentionOf>;
let routes: GrpcTransport;
let tenants: Tenants;

beforeAll(async () => {
  world = await openWorld({ retentionSliceRows: SLICE_ROWS });
  routes = grpcTransport(world.neighbours, { interceptors: [serviceTokenInterceptor(() => serviceToken('results'))] });
  const logger = createLogger('results', { level: 'error' });
  tenants = await openTenants({ schema: SCHEMA, entities: resultsEntities, routes, node: 'slices', logger });
});

afterAll(async () => {
  await tenants.close();
  routes.close();
  await world.close();
});

beforeEach(async () => {
  org = await world.organization();
  retention = retentionOf(world, org);
});

const as = () => bearer(org.token);
const itemsOf = async (jobId: string) =>
  (await rows<{ n: number }>(org, 'SELECT count(*)::int AS n FROM task_results WHERE job_id = $1', [jobId]))[0]!.n;
const hitsOf = (jobId: string, filter = '') =>
  world.jobRuns.listHits({ orgId: org.orgId, jobId, filter, pageSize: 1000 }, as());
const smilesOf = async (jobId: string, filter = '') => (await hitsOf(jobId, filter)).hits.map(({ smiles }) => smiles);

/** Makes an ended job as large as that: copies of its first item behind its last, each with a worse score, a pose and a cache entry. */
async function grow(jobId: string, items: number): Promise<void> {
  await rows(
    org,
    `WITH first AS (SELECT * FROM task_results WHERE job_id = '${jobId}' AND item_no = 1),
      numbers AS (SELECT n, encode(sha256(n::text::bytea), 'hex') AS signature, -1 + n / 1e6 AS score FROM generate_series(1001, ${items + 1000}) n),
      made AS (INSERT INTO task_results (job_id, task_id, item_no, molecule_id, smiles, status, input_signature, task_execution_id, score,
          result_data, service_name, ended_at, ended_seq)
        SELECT f.job_id, f.task_id, n, gen_random_uuid(), 'N' || n, 'scored', signature, f.task_execution_id, numbers.score, f.result_data,
          f.service_name, f.ended_at, f.ended_seq FROM first f, numbers RETURNING item_no, input_signature, score, molecule_id),
      poses AS (INSERT INTO docking_results (job_id, task_id, item_no, replicate, pose_rank, molecule_id, score, raw_score, rmsd_lb, rmsd_ub,
          task_execution_id, chunk_no)
        SELECT f.job_id, f.task_id, m.item_no, 1, 1, m.molecule_id, m.score, m.score, 0, 0, f.task_execution_id, 1 FROM first f, made m)
      INSERT INTO result_cache (cache_key, task, input_signature, canonical_job_id, canonical_task_id, canonical_item_no, smiles)
        SELECT 'vina.dock:' || m.input_signature, 'vina.dock', m.input_signature, f.job_id, f.task_id, m.item_no, 'N' FROM first f, made m`,
  );
  for (const table of ['jobs', 'job_tasks']) {
    await rows(org, `UPDATE ${table} SET requested = requested + $2, scored = scored + $2 WHERE job_id = $1`, [
      jobId,
      items,
    ]);
  }
}

/** From here on a statement that deletes more rows than a slice has runs out of its time. */
const hurry = () =>
  rows(
    org,
    `CREATE FUNCTION results.hurry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF (SELECT count(*) FROM gone) > ${SLICE_ROWS} THEN
          RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = 'query_canceled';
        END IF;
        RETURN NULL;
      END $$;
    CREATE TRIGGER hurry AFTER DELETE ON results.task_results REFERENCING OLD TABLE AS gone EXECUTE FUNCTION results.hurry();
    CREATE TRIGGER hurry AFTER DELETE ON results.docking_results REFERENCING OLD TABLE AS gone EXECUTE FUNCTION results.hurry();
    CREATE TRIGGER hurry AFTER DELETE ON results.job_events REFERENCING OLD TABLE AS gone EXECUTE FUNCTION results.hurry()`,
  );

async function pin(smiles: string): Promise<void> {
  const [entry] = await rows<{ input_signature: string }>(
    org,
    'SELECT input_signature FROM result_cache WHERE smiles = $1',
    [smiles],
  );
  const key = { orgId: org.orgId, task: 'vina.dock', inputSignature: entry!.input_signature };
  await createClient(CacheService, world.transport).pinCacheEntry(key, as());
}

test('a job that no one statement could drop goes slice by slice, and keeps nobody else from being dropped', async () => {
  const time = midMonth(-6);
  const older = await finished(world, org, { jobId: idAt(time), smiles: ['S', 'SS'], endedDaysAgo: 100 });
  const smiles = ['C', 'CC', 'CCC', 'CCCC', 'CCCCC', 'CCCCCC'];
  const large = await finished(world, org, { jobId: idAt(time + 1), smiles, endedDaysAgo: 100 });
  const younger = await finished(world, org, { jobId: idAt(time + 2), smiles: ['O', 'OO'], endedDaysAgo: 100 });
  await grow(large.jobId, ITEMS);
  const kept = await finished(world, org, { smiles: ['CC'], endedDaysAgo: 3 });
  expect(kept.cached).toBe(1);
  await pin('C');
  await hurry();

  await retention.set([{ keepDays: 30, keepTopHits: 2 }]);
  const preview = await retention.preview();
  // All but the two best of each, the pinned one and the one that answers a job which is kept.
  expect(preview).toMatchObject({
    jobs: 3n,
    items: BigInt(ITEMS + 2),
    cacheEntries: BigInt(ITEMS + 2),
    partitions: 2n,
  });
  expect((await retention.apply()).deleted).toEqual(preview);
  expect(await smilesOf(large.jobId)).toEqual(['CCCCCC', 'CCCCC', 'CC', 'C']);
  expect(await smilesOf(older.jobId)).toEqual(['SS', 'S']);
  expect(await smilesOf(younger.jobId)).toEqual(['OO', 'O']);
  expect(await rows(org, 'SELECT count(*)::int AS n FROM docking_results')).toEqual([{ n: 16 }]);
  const [line] = await rows<{ metadata: object }>(
    org,
    `SELECT metadata FROM audit_log WHERE action = 'retention.drop' AND job_id = $1`,
    [large.jobId],
  );
  expect(line!.metadata).toMatchObject({ items: ITEMS + 2, kept_top_hits: 2, kept_because_needed: 2 });
  expect(await retention.preview()).toMatchObject({ jobs: 0n, items: 0n, bytes: 0n, partitions: 0n });
  expect(await unsound(org)).toEqual([]);
}, 240_000);

test('between two slices the job shows the hits that it keeps, and what somebody comes to need stays', async () => {
  const smiles = ['C', 'CC', 'CCC', 'CCCC', 'CCCCC', 'CCCCCC'];
  const { jobId } = await finished(world, org, { smiles, endedDaysAgo: 100 });
  const query = { orgId: org.orgId, jobId };
  await grow(jobId, 3 * SLICE_ROWS);
  await retention.set([{ keepDays: 30, keepTopHits: 2 }]);
  const preview = await retention.preview();

  const runId = uuidv7();
  const standing = standingOf(await tenants.transact(org.orgId, (tx) => beginRun(tx, runId, 'somebody')));
  // Small enough that the first molecules are not looked at yet.
  const after = await tenants.transact(org.orgId, (tx) => step(tx, standing, 3));
  const { jobRun } = await world.jobRuns.getJobRun(query, as());
  expect(jobRun!.resultsDropTime).toBeDefined();
  expect(await itemsOf(jobId)).toBeGreaterThan(3 * SLICE_ROWS);
  const shown = ['CCCCCC', 'CCCCC'];
  for (const filter of ['', 'score < 100', 'score > -100', 'rank <= 10', 'source = fresh']) {
    expect(await smilesOf(jobId, filter)).toEqual(shown);
  }
  const best = await world.jobRuns.listHits({ ...query, bestPerMolecule: true }, as());
  expect(best.hits.map((hit) => hit.smiles)).toEqual(shown);
  const { items, nextPageToken, resultsDropTime } = await world.jobRuns.listWorkItems({ ...query, pageSize: 50 }, as());
  expect([items.map((item) => item.smiles).sort(), nextPageToken]).toEqual([shown.toSorted(), '']);
  expect(resultsDropTime).toEqual(jobRun!.resultsDropTime);
  expect((await world.jobRuns.listJobEvents(query, as())).events).toEqual([]);

  // One of those that would go answers a new job now.
  const young = await finished(world, org, { smiles: ['CCC'] });
  expect(young.cached).toBe(1);
  await tenants.transact(org.orgId, (tx) => step(tx, after, SLICE_ROWS));
  expect(await smilesOf(jobId)).toEqual(shown);

  const run = await retention.apply(runId);
  expect(run.deleted!.items).toBe(preview.items - 1n);
  expect(await smilesOf(jobId)).toEqual([...shown, 'CCC']);
  expect(await itemsOf(jobId)).toBe(3);
  expect(
    (await world.jobRuns.listHits({ orgId: org.orgId, jobId: young.jobId, includeBestPose: true }, as())).hits,
  ).toMatchObject([{ smiles: 'CCC', bestPose: { score: -3 } }]);
  expect(await unsound(org)).toEqual([]);
}, 120_000);

test('a run goes on with the job that it was at, though another policy would keep it', async () => {
  const { jobId } = await finished(world, org, { smiles: ['C', 'CC', 'CCC', 'CCCC'], endedDaysAgo: 100 });
  await grow(jobId, 100);
  await retention.set([{ keepDays: 30, keepTopHits: 1 }]);
  const runId = uuidv7();
  const standing = standingOf(await tenants.transact(org.orgId, (tx) => beginRun(tx, runId, 'somebody')));
  await tenants.transact(org.orgId, (tx) => step(tx, standing, 20));
  await retention.set([]);
  expect((await retention.apply(runId)).deleted).toMatchObject({ jobs: 1n, items: 103n });
  expect(await smilesOf(jobId)).toEqual(['CCCC']);
  expect(await unsound(org)).toEqual([]);
});

test('poses wait for the other jobs of their month, show nowhere meanwhile, and go with its partitions', async () => {
  const time = midMonth(-3);
  const smiles = ['C', 'CC', 'CCC'];
  const over = await finished(world, org, { jobId: idAt(time), smiles, endedDaysAgo: 40 });
  const late = await finished(world, org, { jobId: idAt(time), smiles: ['O'], endedDaysAgo: 20 });
  await retention.set([{ keepDays: 30, keepTopHits: 1 }]);
  const preview = await retention.preview();
  expect(preview).toMatchObject({ jobs: 1n, items: 2n, poses: 4n, partitions: 0n });
  expect((await retention.apply()).deleted).toEqual(preview);
  const [poses, events] = [
    `SELECT count(*)::int AS n FROM docking_results`,
    `SELECT count(*)::int AS n FROM job_events WHERE job_id = $1`,
  ];
  expect(await rows(org, poses)).toEqual([{ n: 8 }]);
  expect((await rows<{ n: number }>(org, events, [over.jobId]))[0]!.n).toBeGreaterThan(0);
  const query = { orgId: org.orgId, jobId: over.jobId };
  expect((await world.jobRuns.listJobEvents(query, as())).events).toEqual([]);
  expect(await failureOf(world.jobRuns.listPoses({ ...query, itemNo: 1 }, as()))).toMatchObject({
    reason: 'RESULTS_DROPPED',
  });
  expect(await unsound(org)).toEqual([]);

  await endedAgo(org, late.jobId, 31);
  const rest = await retention.preview();
  // The best hit of the other one stays; what waited was counted before.
  expect(rest).toMatchObject({ jobs: 1n, items: 0n, poses: 0n, partitions: 2n });
  expect((await retention.apply()).deleted).toEqual(rest);
  expect(await rows(org, poses)).toEqual([{ n: 4 }]);
  expect(await rows(org, events, [over.jobId])).toEqual([{ n: 0 }]);
  expect(await unsound(org)).toEqual([]);
});

test('where a job of the month is kept for ever, or for too long, poses and events go row by row at once', async () => {
  const precious = uuidv7();
  const [forever, long] = [midMonth(-3), midMonth(-4)];
  const smiles = ['C', 'CC', 'CCC'];
  const own = docking({ parameters: { seed: 7, receptor: 'artifact' } });
  for (const [time, pipelineId] of [
    [forever, precious],
    [long, uuidv7()],
  ] as const) {
    const { jobId } = await finished(world, org, { jobId: idAt(time), smiles, endedDaysAgo: 100, plans: [own] });
    if (time === forever) await grow(jobId, ITEMS);
    await finished(world, org, { jobId: idAt(time), smiles: ['O'], endedDaysAgo: 20, pipelineId });
  }
  await rows(org, `UPDATE jobs SET pipeline_id = $1 WHERE pipeline_id IS NULL`, [uuidv7()]);
  const [other] = await rows<{ pipeline_id: string }>(
    org,
    `SELECT pipeline_id FROM jobs WHERE ended_at > now() - interval '30 days' AND pipeline_id <> $1`,
    [precious],
  );
  await retention.set([
    { keepDays: 30 },
    { pipelineId: precious, keepDays: 0 },
    { pipelineId: other!.pipeline_id, keepDays: 300 },
  ]);
  await hurry();
  const preview = await retention.preview();
  expect(preview).toMatchObject({ jobs: 2n, items: BigInt(ITEMS + 6), poses: BigInt(ITEMS + 6), partitions: 0n });
  expect((await retention.apply()).deleted).toEqual(preview);
  // Those of the two jobs that are kept; the second one answers from the first.
  expect(await rows(org, 'SELECT count(*)::int AS n FROM docking_results')).toEqual([{ n: 2 }]);
  expect(await rows(org, 'SELECT count(*)::int AS n FROM jobs WHERE sweep_due')).toEqual([{ n: 0 }]);
  expect(await rows(org, 'SELECT count(DISTINCT job_id)::int AS n FROM job_events')).toEqual([{ n: 2 }]);
  expect(await unsound(org)).toEqual([]);
});

test('what has waited for its month for too long goes row by row', async () => {
  const time = midMonth(-3);
  const { jobId } = await finished(world, org, { jobId: idAt(time), smiles: ['C', 'CC'], endedDaysAgo: 60 });
  // Runs and runs.
  await world.materialize(org, { jobId: idAt(time), plans: [docking()], smiles: ['CCCCCCCC'] });
  await retention.set([{ keepDays: 30 }]);
  await retention.apply();
  const poses = 'SELECT count(*)::int AS n FROM docking_results';
  expect(await rows(org, poses)).toEqual([{ n: 4 }]);
  await rows(org, `UPDATE jobs SET results_dropped_at = now() - interval '20 days' WHERE job_id = $1`, [jobId]);
  await retention.apply();
  expect(await rows(org, poses)).toEqual([{ n: 0 }]);
  expect(await unsound(org)).toEqual([]);
});
