import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { CachePolicy, JobState } from '@mad/proto/catalog';
import fc from 'fast-check';
import { sleep } from '@mad/process';
import { newSmiles } from './support/smiles.ts';
import { driftOf } from './support/drift.ts';
import { docking, openWorld, rows, type JobOptions, type Organization, type World } from './support/world.ts';

let world: World;
let org: Organization;

beforeAll(async () => {
  world = await openWorld();
});

beforeEach(async () => {
  org = await world.organization();
  world.around.settled.length = 0;
});

afterAll(() => world.close());

const POSE = { replicate: 1, poseRank: 1, score: -7, rawScore: -7, rmsdLb: 0, rmsdUb: 0 };
const docked = { score: -7, poses: [POSE] };

/** A job of one execution. */
async function makeJob(smiles: string[], options: JobOptions = {}) {
  const { jobId, runnable } = await world.materialize(org, {
    smiles,
    plans: [docking({ chunkSize: 100 })],
    ...options,
  });
  return { jobId, id: runnable[0]!.taskExecutionId };
}

const compute = async (id: string, items: readonly number[], attempt = 1) => {
  const outcomes = items.map((itemNo) => ({ itemNo, ...docked }));
  if (outcomes.length > 0) await world.append(org, id, outcomes, attempt);
  await world.finish(org, id, attempt);
};

const bigints = (_key: string, value: unknown): unknown => (typeof value === 'bigint' ? Number(value) : value);

/** What catalog was told of a job last, once it is so. */
async function told(jobId: string, state: JobState, runnable = 0) {
  for (let tries = 0; ; tries += 1) {
    const last = world.around.settled.findLast(({ progress }) => progress?.jobId === jobId);
    if (last?.progress?.state === state && last.runnable.length === runnable) return last;
    if (tries === 1000) throw new Error(`catalog was told ${JSON.stringify(last?.progress?.counters, bigints)}`);
    await sleep(10);
  }
}

const itemsOf = (jobId: string) =>
  rows<{ item_no: number; status: string; from: string | null }>(
    org,
    `SELECT item_no, status, reused_from_job_id AS "from" FROM task_results WHERE job_id = $1 ORDER BY item_no`,
    [jobId],
  );

const statusesOf = async (jobId: string) => (await itemsOf(jobId)).map(({ status }) => status);

/** Counters, histograms and events are what the rows give. */
async function expectNoDrift() {
  expect(await driftOf(org)).toEqual([]);
  const kept = await rows(
    org,
    `SELECT j.job_id FROM jobs j, LATERAL (SELECT count(*) AS requested, count(*) FILTER (WHERE status = 'cached') AS cached,
        count(*) FILTER (WHERE status = 'scored') AS scored, count(*) FILTER (WHERE status = 'pending') AS pending
        FROM task_results t WHERE t.job_id = j.job_id) n
      WHERE j.requested <> n.requested OR j.cached <> n.cached OR j.scored <> n.scored OR j.pending <> n.pending`,
  );
  expect(kept).toEqual([]);
  expect(
    await rows(org, 'SELECT job_id FROM job_events GROUP BY job_id HAVING max(seq_no) <> count(*) OR min(seq_no) <> 1'),
  ).toEqual([]);
}

test('of two jobs with equal items the second computes nothing that the first one is at', async () => {
  const smiles = newSmiles(3);
  const first = await makeJob(smiles);
  const second = await makeJob(smiles);
  expect((await world.start(org, first.id)).items).toHaveLength(3);
  expect(await world.start(org, second.id)).toMatchObject({ alreadyFinished: true, items: [] });
  expect(await statusesOf(second.jobId)).toEqual(['pending', 'pending', 'pending']);
  expect((await told(second.jobId, JobState.RUNNING)).progress!.counters).toMatchObject({ pending: 3n });

  await compute(first.id, [1, 2, 3]);
  const { progress } = await told(second.jobId, JobState.COMPLETED);
  expect(progress!.counters).toMatchObject({ requested: 3n, cached: 3n, pending: 0n });
  expect(await itemsOf(second.jobId)).toEqual(
    [1, 2, 3].map((item_no) => ({ item_no, status: 'cached', from: first.jobId })),
  );
  expect(await rows(org, 'SELECT hit_count::int AS hits FROM result_cache')).toEqual(
    [1, 1, 1].map((hits) => ({ hits })),
  );
  await expectNoDrift();
});

test('what only the second job has it computes at once, and what follows its items ends with them', async () => {
  const [shared, own] = newSmiles(2) as [string, string];
  const first = await makeJob([shared]);
  // Each molecule twice: the later one follows the earlier one.
  const second = await makeJob([own, shared, shared, own]);
  await world.start(org, first.id);
  const { items } = await world.start(org, second.id);
  expect(items.map(({ itemNo }) => itemNo)).toEqual([1]);
  await compute(second.id, [1]);
  expect(await statusesOf(second.jobId)).toEqual(['scored', 'pending', 'pending', 'cached']);
  await compute(first.id, [1]);
  await told(second.jobId, JobState.COMPLETED);
  expect((await itemsOf(second.jobId)).map(({ from }) => from)).toEqual([null, first.jobId, first.jobId, second.jobId]);
  await expectNoDrift();
});

test('a job that waited in the queue while another computed the same takes its results when it begins', async () => {
  const smiles = newSmiles(2);
  const first = await makeJob(smiles);
  const second = await makeJob([...smiles, ...newSmiles(1)]);
  await world.start(org, first.id);
  await compute(first.id, [1, 2]);
  expect((await world.start(org, second.id)).items.map(({ itemNo }) => itemNo)).toEqual([3]);
  expect(await statusesOf(second.jobId)).toEqual(['cached', 'cached', 'pending']);
  await expectNoDrift();
  await compute(second.id, [3]);
  await told(second.jobId, JobState.COMPLETED);
  await expectNoDrift();
});

test('a job that is cancelled leaves the others their own work', async () => {
  const smiles = newSmiles(2);
  const first = await makeJob(smiles);
  const second = await makeJob(smiles);
  const third = await makeJob(smiles);
  await world.start(org, first.id);
  await world.start(org, second.id);
  await world.start(org, third.id);
  // Who waits may go: nothing happens to the one who computes.
  await world.asCatalog.cancelJobRun({ orgId: org.orgId, jobId: third.jobId });
  expect(await statusesOf(third.jobId)).toEqual(['cancelled', 'cancelled']);
  await world.asCatalog.cancelJobRun({ orgId: org.orgId, jobId: first.jobId });
  const { runnable } = await told(second.jobId, JobState.RUNNING, 1);
  const id = runnable[0]!.taskExecutionId;
  expect((await world.start(org, id)).items.map(({ itemNo }) => itemNo)).toEqual([1, 2]);
  await compute(id, [1, 2]);
  await told(second.jobId, JobState.COMPLETED);
  expect(await statusesOf(second.jobId)).toEqual(['scored', 'scored']);
  await expectNoDrift();
});

test('what fails for one job the others try themselves', async () => {
  const smiles = newSmiles(2);
  const first = await makeJob(smiles);
  const second = await makeJob(smiles);
  await world.start(org, first.id);
  await world.start(org, second.id);
  // Nothing is said of the other item: it fails.
  await compute(first.id, [2]);
  const { runnable } = await told(second.jobId, JobState.RUNNING, 1);
  expect(await statusesOf(second.jobId)).toEqual(['pending', 'cached']);
  await world.run(org, runnable[0]!.taskExecutionId, () => docked);
  await told(second.jobId, JobState.COMPLETED);
  expect(await statusesOf(second.jobId)).toEqual(['scored', 'cached']);
  await expectNoDrift();
});

test('who waits for two jobs waits for the second after the first has ended', async () => {
  const [one, two] = newSmiles(2) as [string, string];
  const first = await makeJob([one]);
  const second = await makeJob([two]);
  const third = await makeJob([one, two]);
  for (const { id } of [first, second, third]) await world.start(org, id);
  await compute(first.id, [1]);
  while ((await statusesOf(third.jobId))[0] === 'pending') await sleep(10);
  expect(await statusesOf(third.jobId)).toEqual(['cached', 'pending']);
  await compute(second.id, [1]);
  await told(third.jobId, JobState.COMPLETED);
  await expectNoDrift();
});

test('two jobs that begin at the same moment compute each item once', async () => {
  const smiles = newSmiles(20);
  const jobs = await Promise.all([makeJob(smiles), makeJob(smiles.toReversed()), makeJob(smiles)]);
  const started = await Promise.all(jobs.map(({ id }) => world.start(org, id)));
  expect(started.flatMap(({ items }) => items)).toHaveLength(20);
  for (const [index, { items, alreadyFinished }] of started.entries()) {
    if (alreadyFinished) continue;
    await compute(
      jobs[index]!.id,
      items.map(({ itemNo }) => itemNo),
    );
  }
  for (const { jobId } of jobs) await told(jobId, JobState.COMPLETED);
  await expectNoDrift();
});

test('where nobody was told, the question how the job stands wakes it', async () => {
  const smiles = newSmiles(1);
  const first = await makeJob(smiles);
  const second = await makeJob(smiles);
  await world.start(org, first.id);
  await world.start(org, second.id);
  await world.append(org, first.id, [{ itemNo: 1, ...docked }]);
  // A process that died between its commit and the rest.
  world.around.refuseSettles = 100;
  await world.finish(org, first.id).catch(() => undefined);
  const asked = await world.asCatalog.reconcileJob({ orgId: org.orgId, jobId: second.jobId });
  expect(asked.progress).toMatchObject({ state: JobState.COMPLETED });
  world.around.refuseSettles = 0;
  await expectNoDrift();
});

test.each([
  ['wants results of its own', { policy: CachePolicy.REFRESH }],
  ['leaves no results to others, and takes none', { policy: CachePolicy.BYPASS }],
  [
    'computes something else',
    { plans: [docking({ chunkSize: 100, parameters: { seed: 43, center_x: 1.5, receptor: 'artifact' } })] },
  ],
])('a job waits for nobody when it %s', async (_why, options) => {
  const smiles = newSmiles(2);
  const first = await makeJob(smiles);
  const second = await makeJob(smiles, options);
  await world.start(org, first.id);
  expect((await world.start(org, second.id)).items).toHaveLength(2);
});

test('nobody waits for a job that leaves no results', async () => {
  const smiles = newSmiles(2);
  const first = await makeJob(smiles, { policy: CachePolicy.BYPASS });
  const second = await makeJob(smiles);
  await world.start(org, first.id);
  expect((await world.start(org, second.id)).items).toHaveLength(2);
});

test('an attempt after a lost worker goes on with its own items', async () => {
  const smiles = newSmiles(2);
  const first = await makeJob(smiles);
  const second = await makeJob(smiles);
  await world.start(org, first.id);
  await world.start(org, second.id);
  expect((await world.start(org, first.id, 2)).items).toHaveLength(2);
  await compute(first.id, [1, 2], 2);
  await told(second.jobId, JobState.COMPLETED);
});

/** A lease that catalog gave, or may give. */
interface Known {
  id: string;
  attempt: number;
  items: number[];
}

test('whatever jobs with equal items do to each other, each ends, whole, and nothing is computed twice', async () => {
  const job = fc.array(fc.constantFrom('C', 'N', 'O', 'S'), { minLength: 1, maxLength: 5 });
  const step = fc.record({
    kind: fc.constantFrom('start', 'start', 'start', 'finish', 'finish', 'finish', 'fail_items', 'reconcile', 'cancel'),
    pick: fc.nat(20),
  });
  let shared = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(job, { minLength: 2, maxLength: 3 }),
      fc.array(step, { maxLength: 20 }),
      async (jobs, steps) => {
        org = await world.organization();
        world.around.settled.length = 0;
        const queue = new Map<string, Known>();
        const queued = ({ runnable }: { runnable: { taskExecutionId: string }[] }): void => {
          for (const { taskExecutionId: id } of runnable)
            if (!queue.has(id)) queue.set(id, { id, attempt: 0, items: [] });
        };
        const ids: string[] = [];
        for (const smiles of jobs) {
          const made = await world.materialize(org, { smiles, plans: [docking({ chunkSize: 2 })] });
          ids.push(made.jobId);
          queued(made);
        }
        const heard = (): void => {
          for (const told of world.around.settled.splice(0)) queued(told);
        };
        const pickOf = <T>(all: T[], pick: number): T | undefined => all[pick % Math.max(1, all.length)];
        const start = async (known: Known): Promise<void> => {
          const { alreadyFinished, items } = await world.start(org, known.id, known.attempt + 1);
          known.attempt += 1;
          known.items = items.map(({ itemNo }) => itemNo);
          if (alreadyFinished) queue.delete(known.id);
        };
        const finish = async (known: Known, items: number[]): Promise<void> => {
          // Whose job was cancelled meanwhile has lost the lease.
          await compute(known.id, items, known.attempt).catch(() => undefined);
          queue.delete(known.id);
        };
        for (const { kind, pick } of steps) {
          heard();
          const jobId = pickOf(ids, pick)!;
          const any = pickOf([...queue.values()], pick);
          const running = pickOf(
            [...queue.values()].filter(({ items }) => items.length > 0),
            pick,
          );
          if (kind === 'start' && any !== undefined) await start(any);
          if (kind === 'finish' && running !== undefined) await finish(running, running.items);
          if (kind === 'fail_items' && running !== undefined) await finish(running, running.items.slice(1));
          if (kind === 'reconcile') queued(await world.asCatalog.reconcileJob({ orgId: org.orgId, jobId }));
          if (kind === 'cancel' && pick > 15) await world.asCatalog.cancelJobRun({ orgId: org.orgId, jobId });
        }
        for (let round = 0; round < 20; round += 1) {
          const asked = await Promise.all(
            ids.map((jobId) => world.asCatalog.reconcileJob({ orgId: org.orgId, jobId })),
          );
          if (asked.every(({ progress }) => progress!.counters!.pending === 0n)) break;
          queue.clear();
          for (const one of asked) queued(one);
          for (const known of queue.values()) {
            const [row] = await rows<{ attempt: number }>(
              org,
              'SELECT attempt FROM task_executions WHERE task_execution_id = $1',
              [known.id],
            );
            known.attempt = row!.attempt;
            await start(known);
            if (known.items.length > 0) await finish(known, known.items);
          }
        }
        await expectNoDrift();
        expect(await rows(org, `SELECT job_id FROM jobs WHERE ended_at IS NULL`)).toEqual([]);
        expect(
          await rows(
            org,
            `SELECT input_signature FROM task_results WHERE status = 'scored' GROUP BY 1 HAVING count(*) > 1`,
          ),
        ).toEqual([]);
        expect(
          await rows(
            org,
            `SELECT t.item_no FROM task_results t WHERE status = 'cached' AND NOT EXISTS (SELECT FROM task_results s
            WHERE s.job_id = t.reused_from_job_id AND s.task_id = t.reused_from_task_id AND s.item_no = t.reused_from_item_no AND s.status = 'scored')`,
          ),
        ).toEqual([]);
        const [crossed] = await rows<{ n: number }>(
          org,
          `SELECT count(*)::int AS n FROM task_results WHERE status = 'cached' AND reused_from_job_id <> job_id`,
        );
        shared += crossed!.n;
      },
    ),
    { numRuns: 20 },
  );
  // A property that is never put to the test holds of everything.
  expect(shared).toBeGreaterThan(10);
});
