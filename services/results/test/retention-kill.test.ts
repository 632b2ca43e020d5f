import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { createClient } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import { RetentionService } from '@mad/proto/results';
import { ServiceProcess } from '@mad/testing';
import pg from 'pg';
import { finished, idAt, midMonth, retentionOf, unsound } from './support/retention.ts';
import { bearer, docking, openWorld, rows, type Organization, type World } from './support/world.ts';

/** Results as a process of its own, killed in the middle of every kind of step. */

const NODE = 'killed';
/** More than a step takes. */
const JOBS = 60;
const PER_STEP = 50;

let world: World;
let victim: ServiceProcess;
let holder: pg.Client;

beforeAll(async () => {
  world = await openWorld();
});

afterEach(async () => {
  await victim?.close();
  await holder?.end();
});

afterAll(() => world.close());

/** Waits until a question about the process's sessions is answered with yes. */
async function until(org: Organization, condition: string): Promise<void> {
  for (let wait = 0; wait < 1500; wait += 1) {
    const found = await rows<{ yes: boolean }>(
      org,
      `SELECT ${condition} AS yes FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '${NODE}%'`,
    );
    if (found[0]!.yes) return;
    await delay(20);
  }
  throw new Error(`never: ${condition}`);
}

const standing = async (org: Organization) =>
  (
    await rows<Record<string, number>>(
      org,
      `SELECT count(*) FILTER (WHERE results_dropped_at IS NOT NULL)::int AS dropped,
        count(*) FILTER (WHERE results_dropped_at IS NOT NULL AND EXISTS (SELECT FROM task_results t WHERE t.job_id = j.job_id
          AND t.smiles = 'CC'))::int AS half FROM jobs j`,
    )
  )[0]!;

/**
 * Has a process of results apply retention until it runs into what is held, and kills it there; again and again with the same
 * request. `environment` is more of its settings.
 */
async function killer(org: Organization, requestId: string, environment: Record<string, string> = {}) {
  holder = new pg.Client(org.database.adminUrl);
  await holder.connect();
  await holder.query('SET search_path = results');
  victim = await ServiceProcess.of('results', world.environment);
  const apply = () =>
    createClient(RetentionService, victim.transport()).applyRetention(
      { orgId: org.orgId, requestId },
      bearer(org.token),
    );
  return async (held: string, params: unknown[] = []) => {
    await holder.query('BEGIN');
    await holder.query(held, params);
    victim.start({ RESULTS_NODE: NODE, RESULTS_RETENTION_EVERY_HOURS: '0', ...environment });
    let asks = true;
    const asking = (async () => {
      while (asks) {
        await apply().catch(() => undefined);
        await delay(20);
      }
    })();
    await until(org, `coalesce(bool_or(wait_event_type = 'Lock'), false)`);
    asks = false;
    await victim.kill();
    await asking;
    await holder.query('ROLLBACK');
    await until(org, 'count(*) = 0');
  };
}

test('killed while it drops results or sweeps partitions, it leaves whole jobs or none, and goes on where it was', async () => {
  const org = await world.organization();
  const retention = retentionOf(world, org);
  const month = midMonth(-6);
  const jobs: string[] = [];
  for (let place = 0; place < JOBS; place += 1) {
    // The second molecule of each job goes, the first stays as its best hit; none answers another job's.
    const plans = [docking({ parameters: { seed: place + 1, receptor: 'artifact' } })];
    const { jobId } = await finished(world, org, {
      jobId: idAt(month + place),
      smiles: ['CCC', 'CC'],
      plans,
      endedDaysAgo: 100,
    });
    jobs.push(jobId);
  }
  await retention.set([{ keepDays: 30, keepTopHits: 1 }]);
  const preview = await retention.preview();
  expect(preview).toMatchObject({ jobs: BigInt(JOBS), items: BigInt(JOBS), partitions: 2n });

  const requestId = uuidv7();
  const killWhere = await killer(org, requestId);
  const itemOf = `SELECT 1 FROM task_results WHERE job_id = $1 AND smiles = 'CC' FOR UPDATE`;

  await killWhere(itemOf, [jobs[JOBS - 10]]);
  expect(await standing(org)).toEqual({ dropped: 0, half: 0 });
  expect(await unsound(org)).toEqual([]);

  await killWhere(itemOf, [jobs[JOBS - PER_STEP - 3]]);
  expect(await standing(org)).toEqual({ dropped: PER_STEP, half: 0 });
  expect((await retention.runs()).runs).toMatchObject([{ runId: requestId, deleted: { jobs: BigInt(PER_STEP) } }]);
  expect(await unsound(org)).toEqual([]);

  await killWhere('LOCK TABLE docking_results IN ACCESS SHARE MODE');
  expect(await standing(org)).toEqual({ dropped: JOBS, half: 0 });
  expect((await retention.runs()).runs).toMatchObject([{ deleted: { jobs: BigInt(JOBS), partitions: 0n } }]);
  expect(await unsound(org)).toEqual([]);

  const run = await retention.apply(requestId);
  expect(run.deleted).toEqual(preview);
  expect(run.endTime).toBeDefined();
  expect(await rows(org, 'SELECT count(*)::int AS n FROM docking_results')).toEqual([{ n: 2 * JOBS }]);
  expect(await rows(org, `SELECT count(*)::int AS n FROM audit_log WHERE action = 'retention.drop'`)).toEqual([
    { n: JOBS },
  ]);
  expect(await unsound(org)).toEqual([]);
}, 240_000);

test('killed between slices of one job, it goes on behind the last one, and nobody sees half a list meanwhile', async () => {
  const org = await world.organization();
  const retention = retentionOf(world, org);
  // Shorter ones are worse, and come first.
  const smiles = Array.from({ length: 40 }, (_, index) => 'C'.repeat(index + 1));
  const plans = [docking({ chunkSize: 40 })];
  const { jobId } = await finished(world, org, { jobId: idAt(midMonth(-6)), smiles, plans, endedDaysAgo: 100 });
  await retention.set([{ keepDays: 30, keepTopHits: 2 }]);
  const preview = await retention.preview();
  expect(preview).toMatchObject({ jobs: 1n, items: 38n, poses: 76n, partitions: 2n });

  const requestId = uuidv7();
  const killWhere = await killer(org, requestId, { RESULTS_RETENTION_SLICE_ROWS: '8' });
  let items = 40;
  for (const held of [20, 30]) {
    await killWhere('SELECT 1 FROM task_results WHERE job_id = $1 AND item_no = $2 FOR UPDATE', [jobId, held]);
    const [left] = await rows<{ n: number; first: number }>(
      org,
      'SELECT count(*)::int AS n, min(item_no)::int AS first FROM task_results WHERE job_id = $1',
      [jobId],
    );
    expect(left!.n).toBeLessThan(items);
    expect(left!.first).toBeGreaterThan(held - 8);
    expect(left!.first).toBeLessThanOrEqual(held);
    items = left!.n;
    const [run] = (await retention.runs()).runs;
    expect(run).toMatchObject({ runId: requestId, deleted: { items: BigInt(40 - items) } });
    const page = await world.jobRuns.listHits({ orgId: org.orgId, jobId }, bearer(org.token));
    expect(page.hits.map((hit) => hit.itemNo)).toEqual([40, 39]);
    expect(page.resultsDropTime).toBeDefined();
    expect(await unsound(org)).toEqual([]);
  }
  const run = await retention.apply(requestId);
  expect(run.deleted).toEqual(preview);
  expect(await rows(org, 'SELECT count(*)::int AS n FROM docking_results')).toEqual([{ n: 4 }]);
  expect(await rows(org, `SELECT count(*)::int AS n FROM audit_log WHERE action = 'retention.drop'`)).toEqual([
    { n: 1 },
  ]);
  expect(await unsound(org)).toEqual([]);
}, 240_000);
