import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createLeaseSigner, generateSigningKey } from '@mad/auth';
import { createClient } from '@connectrpc/connect';
import { MINUTE_MS, uuidv7 } from '@mad/process';
import { JobState } from '@mad/proto/catalog';
import { ExecutionService } from '@mad/proto/results';
import { bearer, serviceToken, testServiceKey } from '@mad/testing';
import type { AuditRow } from '../src/db/entities/audit.ts';
import { firstBrokenLine } from '../src/runs/audit.ts';
import { failureOf } from './support/errors.ts';
import { newSmiles } from './support/smiles.ts';
import { docking, openWorld, rows, type Organization, type Outcome, type World } from './support/world.ts';

let world: World;
let org: Organization;

beforeAll(async () => {
  world = await openWorld();
  org = await world.organization();
});

afterAll(() => world.close());

/** A molecule nobody computed before in this file. */

/** A job of one execution, made and started under attempt 1. */
async function startedJob(count: number, plan = docking()) {
  const made = await world.materialize(org, { smiles: newSmiles(count), plans: [plan] });
  const id = made.runnable[0]!.taskExecutionId;
  const started = await world.start(org, id);
  return { id, jobId: made.jobId, started };
}

const pose = (changes: object = {}) => ({
  replicate: 1,
  poseRank: 1,
  score: -7,
  rawScore: -9,
  rmsdLb: 0,
  rmsdUb: 0,
  ...changes,
});
const docked = (itemNo: number, changes: Partial<Outcome> = {}): Outcome => ({
  itemNo,
  score: -7,
  poses: [pose()],
  ...changes,
});

const LOST = { code: 'aborted', reason: 'LEASE_LOST' };

test('a job runs from its materialization to its end', async () => {
  const made = await world.materialize(org, { smiles: ['C', 'CC', 'CCC', 'CCCC', 'CCCCC', 'C'] });
  expect(made.progress).toMatchObject({ state: JobState.QUEUED, eventSeq: 1n, jobId: made.jobId });
  expect(made.progress?.counters).toMatchObject({ requested: 6n, pending: 6n });
  expect(made.runnable).toMatchObject([
    { engine: 'rdkit@2026.09.1', cores: 1, memoryMb: 256 },
    { engine: 'rdkit@2026.09.1', cores: 1, memoryMb: 256 },
  ]);

  const [first, second] = made.runnable.map(({ taskExecutionId }) => taskExecutionId) as [string, string];
  const started = await world.start(org, first);
  expect(started).toMatchObject({ alreadyFinished: false, jobId: made.jobId, task: 'rdkit.similarity' });
  expect(started.parameters).toEqual({ reference: 'CCO' });
  expect(started.items.map(({ itemNo, smiles }) => [itemNo, smiles])).toEqual([
    [1, 'C'],
    [2, 'CC'],
    [3, 'CCC'],
    [4, 'CCCC'],
  ]);

  expect(await world.append(org, first, [{ itemNo: 1, score: 0.5, resultData: { a: 1 } }])).toBe(1);
  expect(
    await world.append(
      org,
      first,
      [2, 3, 4].map((itemNo) => ({ itemNo, score: itemNo / 10 })),
    ),
  ).toBe(4);
  const finished = await world.finish(org, first);
  // The sixth molecule is the first again: it ended with it, computed once.
  expect(finished.progress?.counters).toMatchObject({ requested: 6n, scored: 4n, cached: 1n, pending: 1n });
  await world.run(org, second, () => ({ score: 0.9 }));

  const settled = world.around.settled.filter(({ progress }) => progress?.jobId === made.jobId);
  expect(settled.map(({ taskExecutionId }) => taskExecutionId)).toEqual([first, second]);
  expect(settled.at(-1)?.progress).toMatchObject({ state: JobState.COMPLETED });
  expect(settled.at(-1)?.progress?.counters).toMatchObject({ scored: 5n, cached: 1n, failed: 0n, pending: 0n });

  const events = await rows<{ seq_no: string; event: string }>(
    org,
    'SELECT seq_no, event FROM job_events WHERE job_id = $1 ORDER BY seq_no',
    [made.jobId],
  );
  expect(events.map(({ seq_no }) => Number(seq_no))).toEqual(events.map((_event, index) => index + 1));
  expect(events.map(({ event }) => event)).toEqual([
    'job.materialized',
    'job.running',
    'execution.started',
    'execution.finished',
    'execution.started',
    'execution.finished',
    'job.completed',
  ]);
  expect(settled.at(-1)?.progress?.eventSeq).toBe(BigInt(events.length));
});

test('what a worker runs is what was hashed', async () => {
  const plan = docking({ parameters: { seed: 42, cpu: 8, center_x: 1.23456, center_y: -0, receptor: 'artifact' } });
  const { started } = await startedJob(1, plan);
  expect(started.parameters).toEqual({ center_x: 1.235, center_y: 0, seed: 42 });
  expect(started.artifacts).toMatchObject([{ parameter: 'receptor', sha256: 'a'.repeat(64) }]);
});

test('what looks like a NUL and is none is kept; metrics with one are refused', async () => {
  const { id, jobId } = await startedJob(1);
  const resultData = { path: 'C:\\u0000', two: '\\\\u0000' };
  await world.append(org, id, [docked(1, { resultData })]);
  const lease = await world.lease(org, id, 1);
  const wrong = world.asWorker.finishExecution({ ...lease, metrics: { host: 'a\0' } });
  expect(await failureOf(wrong)).toEqual({ code: 'invalid_argument', fields: ['metrics'] });
  await world.finish(org, id);
  expect(await rows(org, 'SELECT result_data FROM task_results WHERE job_id = $1', [jobId])).toEqual([
    { result_data: resultData },
  ]);
});

test('an item without outcome fails as missing; with the engine’s error when that failed as a whole', async () => {
  const one = await startedJob(2);
  await world.append(org, one.id, [docked(1)]);
  const { progress } = await world.finish(org, one.id);
  expect(progress).toMatchObject({ state: JobState.COMPLETED, counters: { scored: 1n, failed: 1n } });
  const errors = (jobId: string) =>
    rows(org, `SELECT item_no, error_class, error_message FROM task_results WHERE job_id = $1 AND status = 'failed'`, [
      jobId,
    ]);
  expect(await errors(one.jobId)).toMatchObject([{ item_no: 2, error_class: 'MISSING_RESULT' }]);

  const two = await startedJob(1);
  const lease = await world.lease(org, two.id, 1);
  const failed = await world.asWorker.finishExecution({
    ...lease,
    errorClass: 'OUT_OF_MEMORY',
    errorMessage: 'killed\0',
  });
  expect(failed.progress).toMatchObject({ state: JobState.FAILED, counters: { failed: 1n } });
  expect(failed.progress?.detail).toMatch('none of 1 work items has a result');
  expect(await errors(two.jobId)).toEqual([{ item_no: 1, error_class: 'OUT_OF_MEMORY', error_message: 'killed' }]);
  expect(await world.finish(org, two.id)).toMatchObject({ progress: { state: JobState.FAILED } });
});

test('a newer attempt takes over from the beginning; the older one has lost', async () => {
  const { id, jobId } = await startedJob(2);
  await world.append(org, id, [docked(1)]);
  const started = await world.start(org, id, 3);
  expect(started.items.map(({ itemNo }) => itemNo)).toEqual([1, 2]);
  expect(await rows(org, 'SELECT 1 FROM docking_results WHERE job_id = $1', [jobId])).toEqual([]);
  expect(await rows(org, 'SELECT attempt, retries FROM task_executions WHERE job_id = $1', [jobId])).toEqual([
    { attempt: 3, retries: 1 },
  ]);

  for (const attempt of [1, 2]) {
    expect(await failureOf(world.start(org, id, attempt))).toEqual(LOST);
    expect(await failureOf(world.append(org, id, [docked(1)], attempt))).toEqual(LOST);
    expect(await failureOf(world.finish(org, id, attempt))).toEqual(LOST);
  }
  await world.append(org, id, [docked(1), docked(2)], 3);
  // The same attempt asking again loses nothing it has said.
  expect((await world.start(org, id, 3)).items).toHaveLength(2);
  expect((await world.finish(org, id, 3)).progress?.counters).toMatchObject({ scored: 2n });
  expect(await failureOf(world.append(org, id, [docked(1)], 3))).toEqual(LOST);
  expect(await failureOf(world.finish(org, id, 1))).toEqual(LOST);
});

test('terminal comes first: whoever starts a finished execution is told so, and catalog is told again', async () => {
  const { id, jobId } = await startedJob(1);
  await world.append(org, id, [docked(1)]);
  await world.finish(org, id);
  world.around.settled.length = 0;
  for (const attempt of [1, 2]) {
    expect(await world.start(org, id, attempt)).toMatchObject({ alreadyFinished: true, jobId, items: [] });
  }
  expect(world.around.settled).toHaveLength(2);
  expect(world.around.settled[0]).toMatchObject({ taskExecutionId: id, progress: { state: JobState.COMPLETED } });
  expect(world.around.settled[1]?.progress).toEqual(world.around.settled[0]?.progress);
});

test('when catalog cannot be told, the repeat tells it; the work is done once', async () => {
  const { id, jobId } = await startedJob(1);
  await world.append(org, id, [docked(1)]);
  world.around.settled.length = 0;
  world.around.refuseSettles = 1;
  expect(await failureOf(world.finish(org, id))).toEqual({ code: 'unavailable' });
  expect(await rows(org, 'SELECT status FROM jobs WHERE job_id = $1', [jobId])).toEqual([{ status: 'completed' }]);
  expect((await world.finish(org, id)).progress).toMatchObject({ state: JobState.COMPLETED });
  expect(world.around.settled).toHaveLength(1);
  expect(
    await rows(org, `SELECT count(*)::int AS n FROM job_events WHERE job_id = $1 AND event = 'execution.finished'`, [
      jobId,
    ]),
  ).toEqual([{ n: 1 }]);
});

test('when results stops between its commit and the settle, the next worker’s start settles', async () => {
  const { id } = await startedJob(1);
  await world.append(org, id, [docked(1)]);
  world.around.settled.length = 0;
  world.around.refuseSettles = 1;
  expect(await failureOf(world.finish(org, id))).toEqual({ code: 'unavailable' });
  await world.restart();
  expect(await world.start(org, id, 2)).toMatchObject({ alreadyFinished: true });
  expect(world.around.settled).toHaveLength(1);
  expect(world.around.settled[0]).toMatchObject({
    taskExecutionId: id,
    progress: { counters: { scored: 1n, pending: 0n } },
  });
});

test('an execution whose workers were lost is failed once, above every lease', async () => {
  const { id, jobId } = await startedJob(2);
  await world.append(org, id, [docked(1)]);
  const fail = (attempt: number) =>
    world.asCatalog.failExecution({
      orgId: org.orgId,
      taskExecutionId: id,
      attempt,
      errorClass: 'WORKER_LOST',
      errorMessage: 'three leases expired',
    });
  expect(await failureOf(fail(1))).toEqual(LOST);
  const failed = await fail(2);
  expect(failed.progress).toMatchObject({ state: JobState.FAILED, counters: { failed: 2n } });
  expect((await fail(2)).progress).toEqual(failed.progress);
  expect(await rows(org, 'SELECT 1 FROM docking_results WHERE job_id = $1', [jobId])).toEqual([]);
  expect(await failureOf(world.finish(org, id))).toEqual(LOST);
  expect(await world.start(org, id, 3)).toMatchObject({ alreadyFinished: true });
});

test('cancelling ends what has not ended and keeps what has; a late worker has lost', async () => {
  const made = await world.materialize(org, { smiles: newSmiles(6), plans: [docking({ chunkSize: 2 })] });
  const [done, running] = made.runnable.map(({ taskExecutionId }) => taskExecutionId) as [string, string, string];
  await world.run(org, done, () => ({ score: -7, poses: [pose()] }));
  const { items } = await world.start(org, running);
  await world.append(org, running, [docked(items[0]!.itemNo)]);

  const cancel = () => world.asCatalog.cancelJobRun({ orgId: org.orgId, jobId: made.jobId });
  const { progress } = await cancel();
  expect(progress).toMatchObject({ state: JobState.CANCELLED, counters: { scored: 2n, cancelled: 4n, pending: 0n } });
  expect((await cancel()).progress).toEqual(progress);
  expect(await failureOf(world.append(org, running, [docked(items[1]!.itemNo)]))).toEqual(LOST);
  expect(await failureOf(world.finish(org, running))).toEqual(LOST);
  expect(
    await rows(org, 'SELECT DISTINCT item_no FROM docking_results WHERE job_id = $1 ORDER BY 1', [made.jobId]),
  ).toEqual([{ item_no: 1 }, { item_no: 2 }]);
  expect(await failureOf(world.asCatalog.cancelJobRun({ orgId: org.orgId, jobId: uuidv7() }))).toEqual({
    code: 'not_found',
    reason: 'RESOURCE_NOT_FOUND',
  });
});

test('reconciling tells what the rows give, and what is runnable', async () => {
  expect(await world.asCatalog.reconcileJob({ orgId: org.orgId, jobId: uuidv7() })).toMatchObject({
    materialized: false,
  });
  const made = await world.materialize(org, { smiles: newSmiles(8) });
  const [first, second] = made.runnable.map(({ taskExecutionId }) => taskExecutionId) as [string, string];
  await world.start(org, second);
  const open = await world.asCatalog.reconcileJob({ orgId: org.orgId, jobId: made.jobId });
  expect(open.runnable.map(({ taskExecutionId }) => taskExecutionId)).toEqual([first, second]);
  await world.run(org, first, () => ({ score: 0.1 }));
  const later = await world.asCatalog.reconcileJob({ orgId: org.orgId, jobId: made.jobId });
  expect(later).toMatchObject({
    materialized: true,
    progress: { state: JobState.RUNNING, counters: { scored: 4n, pending: 4n } },
  });
  expect(later.runnable.map(({ taskExecutionId }) => taskExecutionId)).toEqual([second]);
});

test('a lease is good for its execution, attempt and organization only, and while it lasts', async () => {
  const { id } = await startedJob(1);
  const other = await startedJob(1);
  const call = (leaseToken: string, taskExecutionId = id, attempt = 1) =>
    failureOf(world.asWorker.finishExecution({ orgId: org.orgId, taskExecutionId, attempt, leaseToken }));
  const { leaseToken } = await world.lease(org, id, 1);
  const denied = { code: 'permission_denied', reason: 'TOKEN_INVALID' };
  expect(await call(leaseToken, other.id)).toEqual(denied);
  expect(await call(leaseToken, id, 2)).toEqual(denied);
  const stranger = await world.organization();
  expect(
    await failureOf(
      world.asWorker.finishExecution({ orgId: stranger.orgId, taskExecutionId: id, attempt: 1, leaseToken }),
    ),
  ).toEqual(denied);
  expect(await call('nonsense')).toEqual(denied);
  expect(await call(await serviceToken('worker'))).toEqual(denied);

  const lease = { orgId: org.orgId, taskExecutionId: id, attempt: 1, worker: 'w' };
  const forged = createLeaseSigner((await generateSigningKey()).privateJwk);
  expect(await call(await forged(lease, new Date(Date.now() + MINUTE_MS)))).toEqual(denied);
  const genuine = createLeaseSigner((await testServiceKey('catalog')).privateJwk);
  expect((await call(await genuine(lease, new Date(Date.now() - MINUTE_MS))))?.reason).toBe('LEASE_LOST');
  // With a genuine lease an execution of another organization is not there.
  const theirs = await genuine({ ...lease, orgId: stranger.orgId }, new Date(Date.now() + MINUTE_MS));
  const asked = world.asWorker.startExecution({
    orgId: stranger.orgId,
    taskExecutionId: id,
    attempt: 1,
    leaseToken: theirs,
    worker: 'w',
  });
  expect(await failureOf(asked)).toEqual({ code: 'not_found', reason: 'RESOURCE_NOT_FOUND' });
});

test('only catalog makes and cancels jobs, only workers run them, users do neither', async () => {
  const request = { orgId: org.orgId, jobId: uuidv7() };
  const denied = { code: 'permission_denied', reason: 'CALLER_NOT_ALLOWED' };
  expect(await failureOf(world.asWorker.cancelJobRun(request))).toEqual(denied);
  expect(await failureOf(world.asWorker.reconcileJob(request))).toEqual(denied);
  const { id } = await startedJob(1);
  expect(await failureOf(world.asCatalog.startExecution({ ...(await world.lease(org, id, 1)), worker: 'w' }))).toEqual(
    denied,
  );
  const anonymous = createClient(ExecutionService, world.transport);
  expect(await failureOf(anonymous.cancelJobRun(request))).toEqual({
    code: 'unauthenticated',
    reason: 'TOKEN_MISSING',
  });
  expect((await failureOf(anonymous.cancelJobRun(request, bearer(org.token))))?.code).toBe('unauthenticated');
});

test('the audit log names who made, cancelled and ended jobs, and shows when it was changed', async () => {
  const own = await world.organization();
  const made = await world.materialize(own);
  await world.asCatalog.cancelJobRun({ orgId: own.orgId, jobId: made.jobId });
  const read = () =>
    rows<AuditRow>(own, 'SELECT * FROM audit_log ORDER BY seq').then((all) =>
      all.map((row) => ({ ...row, seq: row.seq })),
    );
  const log = await read();
  expect(log.map(({ action, outcome }) => [action, outcome])).toEqual([
    ['job.create', 'ok'],
    ['job.cancel', 'ok'],
    ['job.end', 'cancelled'],
  ]);
  expect(log[0]?.user_id).toHaveLength(36);
  expect(firstBrokenLine(log)).toBeUndefined();
  await rows(own, `UPDATE audit_log SET outcome = 'failed' WHERE seq = 2`);
  expect(firstBrokenLine(await read())).toBe(2);
  expect(firstBrokenLine(log.slice(1))).toBe(2);
});
