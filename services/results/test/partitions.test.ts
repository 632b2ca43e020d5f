import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { docking, openWorld, rows, type Organization, type World } from './support/world.ts';

/** A missing partition fails nothing: jobs of any month are made, run and cancelled. */

let world: World;
let org: Organization;

beforeAll(async () => {
  world = await openWorld();
  org = await world.organization();
});

afterAll(() => world.close());

const DAY_MS = 86_400_000;

/** A UUIDv7 made at this moment. */
let made = 0;
function idAt(time: number): string {
  const hex = Math.floor(time).toString(16).padStart(12, '0');
  made += 1;
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-${made.toString(16).padStart(12, '0')}`;
}

const monthStart = (monthsFromNow: number): number => {
  const now = new Date();
  return Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + monthsFromNow, 1);
};
const suffix = (time: number): string => new Date(time).toISOString().slice(0, 7).replace('-', '_');

let smiles = 0;
const job = (jobId: string) =>
  world.materialize(org, {
    jobId,
    smiles: [1, 2, 3].map(() => `C${'N'.repeat((smiles += 1))}`),
    plans: [docking({ chunkSize: 1 })],
  });
const pose = { replicate: 1, poseRank: 1, score: -7, rawScore: -7, rmsdLb: 0, rmsdUb: 0 };
const drop = (time: number, tables = ['docking_results', 'job_events']) =>
  rows(org, tables.map((table) => `DROP TABLE ${table}_${suffix(time)};`).join(' '));
const homeOf = async (table: string, jobId: string) =>
  (
    await rows<{ home: string }>(
      org,
      `SELECT DISTINCT tableoid::regclass::text AS home FROM ${table} WHERE job_id = $1`,
      [jobId],
    )
  ).map(({ home }) => home);

test.each([
  ['the first millisecond of this month', () => monthStart(0)],
  ['the last millisecond of the month before', () => monthStart(0) - 1],
  ['a clock a year late', () => Date.now() - 365 * DAY_MS],
  ['a clock some hours ahead', () => Date.now() + DAY_MS / 2],
  ['a clock that never was set', () => 0],
])('a job from %s finds its partitions', async (_name, when) => {
  const time = when();
  const { jobId, runnable } = await job(idAt(time));
  for (const { taskExecutionId } of runnable)
    await world.run(org, taskExecutionId, () => ({ score: -7, poses: [pose] }));
  expect(await homeOf('docking_results', jobId)).toEqual([`docking_results_${suffix(time)}`]);
  expect(await homeOf('job_events', jobId)).toEqual([`job_events_${suffix(time)}`]);
});

test('a job whose partitions were dropped meanwhile goes on: starts, appends, finishes, fails, is cancelled', async () => {
  const time = monthStart(-5) + DAY_MS;
  const { jobId, runnable } = await job(idAt(time));
  const [one, two] = runnable.map(({ taskExecutionId }) => taskExecutionId) as [string, string, string];
  await drop(time);
  await world.start(org, one);
  await drop(time);
  expect(await world.append(org, one, [{ itemNo: 1, score: -7, poses: [pose] }])).toBe(1);
  expect(await homeOf('docking_results', jobId)).toEqual([`docking_results_${suffix(time)}`]);
  await drop(time, ['job_events']);
  expect((await world.finish(org, one)).progress?.counters).toMatchObject({ scored: 1n });
  await drop(time, ['job_events']);
  const lost = { orgId: org.orgId, taskExecutionId: two, attempt: 9, errorClass: 'WORKER_LOST', errorMessage: '' };
  expect((await world.asCatalog.failExecution(lost)).progress?.counters).toMatchObject({ failed: 1n });
  await drop(time, ['job_events']);
  const cancelled = await world.asCatalog.cancelJobRun({ orgId: org.orgId, jobId });
  expect(cancelled.progress?.counters).toMatchObject({ cancelled: 1n, pending: 0n });
});

test('many jobs of a month nobody has seen are made at the same time', async () => {
  const time = monthStart(-9) + DAY_MS;
  const jobs = await Promise.all(Array.from({ length: 8 }, () => job(idAt(time))));
  for (const { jobId } of jobs) expect(await homeOf('job_events', jobId)).toEqual([`job_events_${suffix(time)}`]);
});

test('reading a job of a dropped month is an empty answer, not a failure', async () => {
  const time = monthStart(-7) + DAY_MS;
  const { jobId, runnable } = await job(idAt(time));
  for (const { taskExecutionId } of runnable)
    await world.run(org, taskExecutionId, () => ({ score: -7, poses: [pose] }));
  await drop(time);
  const options = { headers: { authorization: `Bearer ${org.token}` } };
  const query = { orgId: org.orgId, jobId };
  expect((await world.jobRuns.listPoses({ ...query, itemNo: 1 }, options)).poses).toEqual([]);
  expect((await world.jobRuns.listJobEvents(query, options)).events).toEqual([]);
  expect((await world.jobRuns.listHits({ ...query, includeBestPose: true }, options)).hits).toHaveLength(3);
});
