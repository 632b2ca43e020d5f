import { sleep, uuidv7 } from '@mad/process';
import { JobService } from '@mad/proto/catalog';
import type { Chaos, Scenario } from '../scenario.ts';
import { Screening } from '../science.ts';
import { insist } from '../system.ts';

const LOOK_MS = 5;
const WAIT_MS = 15_000;

/** A kill at a wanted moment of a job; answers the job and whether the moment was met. */
type Fault = (chaos: Chaos, screening: Screening) => Promise<{ jobId: string; hit: boolean }>;

/** The moments between two databases: one side has committed, and the other was not told. */
export const finish: Scenario = {
  name: 'finish',
  weight: 3,
  async run(chaos, kills) {
    const screening = await Screening.of(chaos.system);
    const faults: [string, Fault][] = [
      ['results between its commit and settle', resultsBeforeSettle],
      ['results after the last batch', resultsWhileFinishing],
      ['catalog after its commit', catalogAfterCommit],
      ['catalog while it settles', catalogWhileSettling],
    ];
    const met: Record<string, number> = Object.fromEntries(faults.map(([name]) => [name, 0]));
    const problems: string[] = [];
    let [lost, givenUp, doubled, gaps] = [0, 0, 0, 0];
    for (let kill = 0; kill < kills; kill += 1) {
      const [name, fault] = faults[kill % faults.length]!;
      const { jobId, hit } = await fault(chaos, screening);
      if (hit) met[name]! += 1;
      const seen = await screening.judged(jobId);
      lost += seen.lost;
      givenUp += seen.givenUp;
      doubled += seen.doubled;
      gaps += seen.gaps;
      problems.push(...seen.problems);
      chaos.progress(`${kill + 1} of ${kills}: ${name}${hit ? '' : ' (missed)'}`);
    }
    return { kills, lost, doubled, gaps, problems, notes: { met, given_up: givenUp } };
  },
};

async function waitFor(is: () => Promise<boolean>): Promise<boolean> {
  for (const until = performance.now() + WAIT_MS; performance.now() < until; await sleep(LOOK_MS)) {
    if (await is()) return true;
  }
  return false;
}

const resultsBeforeSettle: Fault = async ({ system }, screening) => {
  const jobId = await screening.begin();
  const { orgId } = screening.org;
  await waitFor(async () => (await leased(system, jobId)) > 0);
  // Catalog answers nobody: results commits its own transaction and cannot settle.
  system.fleet.freeze('catalog');
  const hit = await waitFor(async () => {
    const finished = await system.inside<{ id: string }>(
      orgId,
      `SELECT task_execution_id AS id FROM results.task_executions WHERE job_id = $1 AND status = 'finished'`,
      jobId,
    );
    const ids = finished.map(({ id }) => id);
    const sql = 'SELECT FROM catalog.task_queue WHERE task_execution_id = ANY($1)';
    return (await system.metadata(sql, ids)).length > 0;
  });
  await system.fleet.kill('results');
  system.fleet.thaw('catalog');
  await system.fleet.start('results');
  return { jobId, hit };
};

const resultsWhileFinishing: Fault = async ({ system, random }, screening) => {
  const jobId = await screening.begin();
  const { orgId } = screening.org;
  const hit = await waitFor(
    async () =>
      (await system.inside(orgId, 'SELECT FROM results.task_executions WHERE job_id = $1 AND batches > 0', jobId))
        .length > 0,
  );
  await sleep(random() * 40);
  await system.restart('results');
  return { jobId, hit };
};

const catalogAfterCommit: Fault = async ({ system }, screening) => {
  const moleculeSetId = await screening.fresh();
  const jobs = (await screening.person()).client(JobService);
  system.fleet.freeze('results');
  const request = { requestId: uuidv7(), ...screening.requestOf(moleculeSetId) };
  const asked = jobs.createJob(request).catch(() => undefined);
  const hit = await waitFor(async () => {
    const sql = 'SELECT FROM catalog.jobs_meta WHERE molecule_set_id = $1';
    return (await system.metadata(sql, moleculeSetId)).length > 0;
  });
  await system.fleet.kill('catalog');
  await asked;
  system.fleet.thaw('results');
  await system.fleet.start('catalog');
  // The caller never had an answer and repeats its request: the same job, not a second one.
  const { job } = await insist(() => jobs.createJob(request));
  return { jobId: job!.jobId, hit };
};

const catalogWhileSettling: Fault = async ({ system, random }, screening) => {
  const jobId = await screening.begin();
  const hit = await waitFor(async () => (await leased(system, jobId)) > 0);
  await sleep(random() * 400);
  await system.restart('catalog');
  return { jobId, hit };
};

async function leased(system: Chaos['system'], jobId: string): Promise<number> {
  const sql = `SELECT FROM catalog.task_queue WHERE job_id = $1 AND state = 'leased'`;
  return (await system.metadata(sql, jobId)).length;
}
