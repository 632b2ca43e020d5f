import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { sleep } from '@mad/process';
import { TenantState } from '@mad/proto/provisioner';
import { openProxy, testCluster, type Fault, type Proxy } from '@mad/testing';
import { columnsOf, type Outcome } from './support/columns.ts';
import { failureOf } from './support/errors.ts';
import { newSmiles } from './support/smiles.ts';
import { atomAt } from './support/structures.ts';
import { onServer } from './support/tenant-database.ts';
import { docking, openWorld, rows, type BatchInit, type Organization, type World } from './support/world.ts';

// What may happen on the way between results and an organization's database while results come in.

const ITEMS = 6;
const POSES = 20;
/** Into how many parts each way is divided: the connection is reset behind each. */
const POINTS = 24;
const STATEMENT_TIMEOUT_MS = 400;

let world: World;
let org: Organization;
let proxy: Proxy;

beforeAll(async () => {
  world = await openWorld({ statementTimeoutMs: STATEMENT_TIMEOUT_MS });
  org = await world.organization();
  const { host, port } = testCluster();
  proxy = await openProxy({ host, port });
  Object.assign(world.around.routes.get(org.orgId)!, { host: '127.0.0.1', port: proxy.port });
});

afterAll(async () => {
  await world?.close();
  await proxy?.close();
});

const docked = (itemNo: number): Outcome => ({
  itemNo,
  score: -7,
  poses: Array.from({ length: POSES }, (_pose, rank) => ({
    replicate: 1,
    poseRank: rank + 1,
    score: -7 + rank / 100,
    rawScore: -9,
    rmsdLb: 0,
    rmsdUb: 0,
  })),
});

/** A job of one execution, with its items in two batches. */
async function startedJob() {
  const made = await world.materialize(org, { smiles: newSmiles(ITEMS), plans: [docking({ chunkSize: 100 })] });
  const id = made.runnable[0]!.taskExecutionId;
  const lease = await world.lease(org, id, 1);
  const half = ITEMS / 2;
  const batches: BatchInit[] = [0, half].map((after, index) => ({
    ...lease,
    batch: index + 1,
    ...columnsOf(
      Array.from({ length: half }, (_one, n) => docked(after + n + 1)),
      'kcal/mol',
    ),
  }));
  return { id, jobId: made.jobId, batches };
}

/** What a worker does: asks how far it is, sends the rest, finishes. */
async function work(id: string, batches: readonly BatchInit[]): Promise<void> {
  const { alreadyFinished, nextBatch } = await world.start(org, id);
  if (alreadyFinished) return;
  const left = batches.slice(nextBatch - 1);
  if (left.length > 0) await world.stream(left);
  await world.finish(org, id);
}

/** Every item and pose once, every event with the number after the one before. */
async function isWhole(jobId: string): Promise<void> {
  expect(
    await rows(
      org,
      `SELECT (SELECT count(*)::int FROM task_results WHERE job_id = $1 AND status = 'scored') AS items,
         (SELECT count(*)::int FROM docking_results WHERE job_id = $1) AS poses,
         (SELECT count(DISTINCT (item_no, pose_rank))::int FROM docking_results WHERE job_id = $1) AS places,
         (SELECT scored::int FROM jobs WHERE job_id = $1) AS scored,
         (SELECT max(seq_no)::int - count(*)::int FROM job_events WHERE job_id = $1) AS gaps,
         (SELECT count(*)::int FROM staged_results) AS staged`,
      [jobId],
    ),
  ).toEqual([{ items: ITEMS, poses: ITEMS * POSES, places: ITEMS * POSES, scored: ITEMS, gaps: 0, staged: 0 }]);
}

describe('a connection that is reset', () => {
  test.each(['server', 'client'] as const)(
    'behind any byte of the %s loses nothing and doubles nothing; who asks again goes on',
    async (from) => {
      const clean = await startedJob();
      const before = proxy.passed[from];
      await work(clean.id, clean.batches);
      const bytes = proxy.passed[from] - before;
      await isWhole(clean.jobId);
      let broken = 0;
      for (let point = 0; point < POINTS; point += 1) {
        const { id, jobId, batches } = await startedJob();
        const fault: Fault = { kind: 'cut', from, afterBytes: 1 + Math.floor((point * bytes) / POINTS) };
        proxy.break(fault);
        for (let tries = 0; ; tries += 1) {
          const failure = await failureOf(work(id, batches));
          if (failure === undefined) break;
          broken += 1;
          expect(failure).toMatchObject({ code: 'unavailable', reason: 'DATABASE_UNAVAILABLE' });
          expect(tries).toBeLessThan(5);
          await sleep(10);
        }
        await isWhole(jobId);
        // Connections that were spared: the next job is made over a way that holds.
        proxy.break({ ...fault, afterBytes: Number.POSITIVE_INFINITY });
      }
      // Some are reset before anything was asked, and asked again by results itself.
      expect(broken).toBeGreaterThan(POINTS / 2);
    },
    120_000,
  );
});

test('structures of a batch are kept whose commit was not heard of', async () => {
  const startedBatch = async () => {
    const { id, jobId } = await startedJob();
    await world.start(org, id);
    const poses = [{ replicate: 1, poseRank: 1, score: -7, rawScore: -9, rmsdLb: 0, rmsdUb: 0, molBlock: atomAt(1) }];
    const columns = columnsOf([{ itemNo: 1, score: -7, poses }], 'kcal/mol');
    return { id, jobId, batch: { ...(await world.lease(org, id, 1)), batch: 1, ...columns } };
  };
  const clean = await startedBatch();
  const before = proxy.passed.server;
  await world.stream([clean.batch]);
  const bytes = proxy.passed.server - before;
  await world.finish(org, clean.id);
  let unheard = 0;
  // The answer to COMMIT, 18 bytes, is the last that comes; a connection that is new is told some more before.
  for (let more = -48; more <= 96; more += 6) {
    const { id, jobId, batch } = await startedBatch();
    proxy.break({ kind: 'cut', from: 'server', afterBytes: bytes + more });
    const failure = await failureOf(world.stream([batch]));
    proxy.break({ kind: 'cut', from: 'server', afterBytes: Number.POSITIVE_INFINITY });
    const [taken] = await rows<{ batches: number }>(
      org,
      'SELECT batches FROM task_executions WHERE task_execution_id = $1',
      [id],
    );
    if (failure !== undefined && taken!.batches === 1) unheard += 1;
    await world.stream([batch]);
    const noted = await rows(
      org,
      'SELECT o.state FROM docking_results d JOIN stored_objects o ON o.object_id = d.pose_object WHERE d.job_id = $1',
      [jobId],
    );
    expect(noted).toEqual([{ state: 'kept' }]);
    await world.finish(org, id);
  }
  expect(unheard).toBeGreaterThan(0);
});

test('a statement that takes too long is told so and changes nothing; the same stream goes on afterwards', async () => {
  const { id, jobId, batches } = await startedJob();
  await world.start(org, id);
  await onServer(org.database.adminUrl, async (holder) => {
    await holder.query('BEGIN; LOCK TABLE results.staged_results IN ACCESS EXCLUSIVE MODE');
    expect(await failureOf(world.stream(batches))).toEqual({ code: 'deadline_exceeded' });
    await holder.query('ROLLBACK');
  });
  await work(id, batches);
  await isWhole(jobId);
});

test('an organization that is suspended in the middle of a stream keeps what was in, and goes on when it is resumed', async () => {
  const { id, jobId, batches } = await startedJob();
  await world.start(org, id);
  const shut = Promise.withResolvers<void>();
  const streamed = failureOf(
    world.stream(
      (async function* () {
        yield batches[0]!;
        await shut.promise;
        yield batches[1]!;
      })(),
    ),
  );
  const staged = () => rows(org, 'SELECT 1 FROM staged_results WHERE task_execution_id = $1', [id]);
  while ((await staged()).length === 0) await sleep(5);
  // As provisioner does it: the route, the logins, the sessions.
  const route = world.around.routes.get(org.orgId)!;
  const turn = (state: TenantState, login: string) => {
    Object.assign(route, {
      state,
      generation: route.generation! + 1n,
      changeSeq: BigInt(world.around.routes.size) + route.generation!,
    });
    return onServer(org.database.adminUrl, async (admin) => {
      await admin.query(`ALTER ROLE ${org.database.user} ${login}`);
      await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [
        org.database.user,
      ]);
    });
  };
  await turn(TenantState.SUSPENDED, 'NOLOGIN');
  shut.resolve();
  expect(await streamed).toEqual({ code: 'failed_precondition', reason: 'TENANT_SUSPENDED' });
  expect(await failureOf(world.start(org, id))).toMatchObject({ reason: 'TENANT_SUSPENDED' });
  expect(await staged()).toHaveLength(ITEMS / 2);
  await turn(TenantState.READY, 'LOGIN');
  // The news is on its way.
  while ((await failureOf(world.start(org, id)))?.reason === 'TENANT_SUSPENDED') await sleep(5);
  expect((await world.start(org, id)).nextBatch).toBe(2);
  await work(id, batches);
  await isWhole(jobId);
});
