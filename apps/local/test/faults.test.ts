import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { JobService, JobState } from '@mad/proto/catalog';
import pg from 'pg';
import { eventually, startFleet, type Fleet } from './support/fleet.ts';
import { brokenInvariants, orphans, query } from './support/invariants.ts';
import { newOrganization, signIn, type Person } from './support/people.ts';
import { alkanes, ended, examplePipeline, IMATINIB, library, submit } from './support/science.ts';

/** Processes are killed and started again: everything here is slow on purpose, nothing depends on how slow. */
const SLOW = 120_000;
const ITEMS = 230;

let fleet: Fleet;
let platform: Person;
let admin: Person;
let database: string;
let pipelineId: string;
let sizes = ITEMS;

beforeAll(async () => {
  // Leases end soon, so that a killed worker is noticed soon.
  fleet = await startFleet({ CATALOG_LEASE_MS: '3000', WORKER_HEARTBEAT_MS: '500', CATALOG_REAP_MS: '500' });
  platform = await signIn(fleet.url, fleet.ground.secrets.administrator);
  const made = await newOrganization(fleet.url, platform, 'acme');
  admin = made.admin;
  database = made.databaseName;
  pipelineId = await examplePipeline(admin, 'ligand-screening.json');
}, SLOW);

afterAll(() => fleet?.close(), SLOW);

/** A job over molecules no earlier job has seen, so that nothing comes from the cache. */
async function freshJob() {
  sizes += 1;
  const smiles = alkanes(ITEMS).map((alkane) => `${alkane}N${'C'.repeat(sizes - ITEMS)}`);
  const moleculeSetId = await library(admin, smiles);
  return submit(admin, { pipelineId, moleculeSetId, parameters: { reference: IMATINIB } });
}

const isLeased = (jobId: string) => async () => {
  const rows = await query(
    fleet,
    'mad_metadata',
    "SELECT 1 FROM catalog.task_queue WHERE job_id = $1 AND state = 'leased'",
    [jobId],
  );
  return rows.length > 0;
};

async function expectWhole(jobId: string) {
  const job = await ended(admin, jobId, SLOW);
  expect(job.state).toBe(JobState.COMPLETED);
  expect(job.counters).toMatchObject({ requested: BigInt(ITEMS), failed: 0n, pending: 0n, cancelled: 0n });
  expect(await brokenInvariants(fleet, database, jobId, ITEMS)).toEqual([]);
}

/** Makes jobs until a fault met one at the wanted moment: `hit` says whether it did. Every job must end whole. */
async function faultAt(fault: (jobId: string) => Promise<boolean>) {
  for (let tries = 0; tries < 5; tries += 1) {
    fleet.freeze('worker');
    const { jobId } = await freshJob();
    fleet.thaw('worker');
    await eventually('a task is leased', isLeased(jobId));
    const hit = await fault(jobId);
    await expectWhole(jobId);
    if (hit) return;
  }
  throw new Error('the fault never met a job at the wanted moment');
}

test(
  'the worker is killed in the middle of a task',
  async () => {
    await faultAt(async (jobId) => {
      await fleet.kill('worker');
      const hit = await isLeased(jobId)();
      await fleet.start('worker');
      return hit;
    });
  },
  SLOW,
);

test(
  'results is killed between its commit and telling catalog',
  async () => {
    await faultAt(async (jobId) => {
      // Catalog answers nobody: results commits its own transaction and cannot settle.
      fleet.freeze('catalog');
      const isCommitted = async () => {
        const finished = await query<{ id: string }>(
          fleet,
          database,
          "SELECT task_execution_id AS id FROM results.task_executions WHERE job_id = $1 AND status = 'finished'",
          [jobId],
        );
        const unsettled = await query(
          fleet,
          'mad_metadata',
          'SELECT 1 FROM catalog.task_queue WHERE task_execution_id = ANY($1)',
          [finished.map((row) => row.id)],
        );
        return unsettled.length > 0;
      };
      const hit = await eventually('results has committed', isCommitted, 5_000).catch(() => false);
      await fleet.kill('results');
      fleet.thaw('catalog');
      await fleet.start('results');
      return hit;
    });
  },
  SLOW,
);

test(
  'catalog is killed after its commit, before anybody else knows of the job',
  async () => {
    const moleculeSetId = await library(
      admin,
      alkanes(ITEMS).map((alkane) => `${alkane}O`),
    );
    fleet.freeze('results');
    const request = {
      orgId: admin.orgId,
      requestId: uuidv7(),
      pipelineId,
      moleculeSetId,
      parameters: { reference: IMATINIB },
    };
    const asked = admin
      .client(JobService)
      .createJob(request)
      .catch(() => undefined);
    await eventually('the job is committed', async () => {
      const rows = await query(fleet, 'mad_metadata', 'SELECT 1 FROM catalog.jobs_meta WHERE molecule_set_id = $1', [
        moleculeSetId,
      ]);
      return rows.length > 0;
    });
    await fleet.kill('catalog');
    await asked;
    fleet.thaw('results');
    await fleet.start('catalog');
    // The caller never got an answer and repeats its request: the same job, not a second one.
    const again = await eventually('catalog answers', () => admin.client(JobService).createJob(request));
    await expectWhole(again.job!.jobId);
    const jobs = await query(fleet, 'mad_metadata', 'SELECT 1 FROM catalog.jobs_meta WHERE molecule_set_id = $1', [
      moleculeSetId,
    ]);
    expect(jobs).toHaveLength(1);
  },
  SLOW,
);

test(
  'Postgres crashes in the middle of an append',
  async () => {
    // What the worker reports goes into this table first: whoever holds it stops the append inside its transaction.
    const holder = new pg.Client(fleet.databaseUrl(database));
    holder.on('error', () => undefined);
    await holder.connect();
    await holder.query('BEGIN; LOCK TABLE results.staged_results IN SHARE MODE');
    const { jobId } = await freshJob();
    await eventually('the append has begun and waits', async () => {
      const appending = await query(
        fleet,
        database,
        `SELECT 1 FROM pg_stat_activity
          WHERE datname = current_database() AND query LIKE 'COPY %' AND wait_event_type = 'Lock'`,
      );
      return appending.length > 0;
    });
    await fleet.crashPostgres();
    await holder.end().catch(() => undefined);
    await expectWhole(jobId);
  },
  SLOW,
);

test(
  'the provisioner is killed while it makes a database',
  async () => {
    const making = newOrganization(fleet.url, platform, 'initech');
    for (let kills = 0; kills < 3; kills += 1) {
      await new Promise((resolve) => setTimeout(resolve, 40 * kills));
      await fleet.kill('provisioner');
      await fleet.start('provisioner');
    }
    await making;
    expect(await eventually('no orphan is left', async () => (await orphans(fleet)).length === 0)).toBe(true);
  },
  SLOW,
);

test(
  'a cancelled job ends with everything accounted for, whoever dies meanwhile',
  async () => {
    const { jobId } = await freshJob();
    await fleet.kill('worker');
    const { job } = await admin.client(JobService).cancelJob({ orgId: admin.orgId, jobId, requestId: uuidv7() });
    expect(job!.cancelRequested || job!.state === JobState.CANCELLED || job!.state === JobState.COMPLETED).toBe(true);
    await fleet.start('worker');
    const after = await ended(admin, jobId, SLOW);
    expect([JobState.CANCELLED, JobState.COMPLETED]).toContain(after.state);
    expect(await brokenInvariants(fleet, database, jobId, ITEMS)).toEqual([]);
  },
  SLOW,
);
