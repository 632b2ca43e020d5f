import { createClient } from '@connectrpc/connect';
import { serviceTokenInterceptor } from '@mad/auth';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { MINUTE_MS, sleep, uuidv7 } from '@mad/process';
import { ExportFormat, ExecutionService, JobRunService } from '@mad/proto/results';
import { served, ServiceProcess, serviceToken } from '@mad/testing';
import { openBucket, type Bucket, type Held } from './support/bucket.ts';
import { columnsOf, type Outcome } from './support/columns.ts';
import { failureOf } from './support/errors.ts';
import { beginExport } from './support/exported.ts';
import { newSmiles } from './support/smiles.ts';
import { atomAt } from './support/structures.ts';
import { bearer, docking, openWorld, rows, similarity, type Organization, type World } from './support/world.ts';

// Objects that come into the store when what they were written for is over, and the sweeper has been there.

let bucket: Bucket;
let world: World;
let org: Organization;

beforeAll(async () => {
  bucket = await openBucket();
  world = await openWorld({ objectStoreUrl: bucket.url });
  org = await world.organization();
});

afterAll(async () => {
  await world?.close();
  await bucket?.close();
});

const docked = (itemNo: number): Outcome => ({
  itemNo,
  score: -8,
  poses: [{ replicate: 1, poseRank: 1, score: -8, rawScore: -5, rmsdLb: 0, rmsdUb: 0, molBlock: atomAt(itemNo) }],
});

async function startedJob() {
  const made = await world.materialize(org, { smiles: newSmiles(1), plans: [docking()] });
  const id = made.runnable[0]!.taskExecutionId;
  await world.start(org, id);
  return { jobId: made.jobId, id };
}

/** Does what has the organization swept; resolves when that sweep has passed. */
async function swept(doing: () => Promise<unknown>): Promise<void> {
  const marker = uuidv7();
  await rows(
    org,
    `INSERT INTO stored_objects (object_id, purpose, owner_id, state) VALUES ($1, 'poses', $1, 'dropped')`,
    [marker],
  );
  await doing();
  for (let round = 0; ; round += 1) {
    if ((await rows(org, 'SELECT FROM stored_objects WHERE object_id = $1', [marker])).length === 0) return;
    if (round === 400) throw new Error('nobody sweeps');
    await sleep(25);
  }
}

const keysOf = (ownerId: string): string[] => [...bucket.objects.keys()].filter((key) => key.includes(ownerId));
const notesOf = (ownerId: string) =>
  rows<{ state: string }>(org, 'SELECT state FROM stored_objects WHERE owner_id = $1', [ownerId]);

async function nothingLeft(ownerId: string): Promise<void> {
  for (let round = 0; ; round += 1) {
    const left = { keys: keysOf(ownerId), notes: await notesOf(ownerId) };
    if (left.keys.length === 0 && left.notes.length === 0) return;
    if (round === 200) throw new Error(`left over: ${JSON.stringify(left)}`);
    await sleep(25);
  }
}

const age = () => rows(org, `UPDATE stored_objects SET created_at = now() - interval '1 hour' WHERE state = 'writing'`);

/** A put that is under way when this resolves. */
async function underWay<T>(begin: () => Promise<T>): Promise<{ held: Held; begun: Promise<T> }> {
  const held = bucket.hold('PUT');
  const begun = begin();
  await held.arrived;
  return { held, begun };
}

test.each([
  ['another attempt has begun', (_jobId: string, id: string) => world.start(org, id, 2)],
  ['the job was cancelled', (jobId: string) => world.asCatalog.cancelJobRun({ orgId: org.orgId, jobId })],
])('structures that arrive when %s are removed', async (_when, over) => {
  const { jobId, id } = await startedJob();
  const { held, begun } = await underWay(() => failureOf(world.append(org, id, [docked(1)])));
  await swept(() => over(jobId, id));
  held.release();
  expect(await begun).toMatchObject({ reason: 'LEASE_LOST' });
  await nothingLeft(jobId);
});

test('structures that took so long that they were swept are removed when they arrive, and the batch may come again', async () => {
  const { jobId, id } = await startedJob();
  const { held, begun } = await underWay(() => failureOf(world.append(org, id, [docked(1)])));
  await age();
  await swept(() => world.materialize(org));
  expect(await notesOf(jobId)).toEqual([]);
  held.release();
  expect(await begun).toEqual({ code: 'unavailable' });
  await nothingLeft(jobId);
  await world.append(org, id, [docked(1)]);
  await world.finish(org, id);
  const { pose } = await world.poses.getPose({ orgId: org.orgId, jobId, itemNo: 1 }, bearer(org.token));
  expect(pose).toMatchObject({ hasStructure: true });
});

test('a part of an export that arrives when the export was deleted is removed', async () => {
  const { jobId, runnable } = await world.materialize(org, { smiles: newSmiles(1), plans: [similarity()] });
  await world.run(org, runnable[0]!.taskExecutionId, () => ({ score: 0.5, resultData: { similarity: 0.5 } }));
  const { held, begun } = await underWay(() => beginExport(world.exports, org, { jobId, format: ExportFormat.CSV }));
  const exportId = await begun;
  await swept(() => world.exports.deleteExport({ orgId: org.orgId, jobId, exportId }, bearer(org.token)));
  held.release();
  await nothingLeft(exportId);
});

test('what is given up while the sweeper is at work goes with what it is at', async () => {
  const [first, second] = [await startedJob(), await startedJob()];
  const refuse = async ({ id }: { id: string }): Promise<void> => {
    const bad = columnsOf([{ ...docked(1), score: Number.NaN }], 'kcal/mol');
    const said = failureOf(world.stream([{ ...(await world.lease(org, id, 1)), batch: 1, ...bad }]));
    expect(await said).toMatchObject({ code: 'invalid_argument' });
  };
  const held = bucket.hold('DELETE');
  await refuse(first);
  await held.arrived;
  await refuse(second);
  held.release();
  await nothingLeft(first.jobId);
  await nothingLeft(second.jobId);
});

test(
  'structures that arrive too late and whose writer dies before it hears of it are swept',
  async () => {
    const victim = await ServiceProcess.of('results', world.environment);
    try {
      victim.start();
      const reader = createClient(JobRunService, victim.transport());
      const worker = createClient(
        ExecutionService,
        victim.transport([serviceTokenInterceptor(() => serviceToken('worker'))]),
      );
      const { jobId, id } = await startedJob();
      await served(() => reader.getJobRun({ orgId: org.orgId, jobId }, bearer(org.token)));
      const lease = await world.lease(org, id, 1);
      async function* message() {
        yield { ...lease, batch: 1, ...columnsOf([docked(1)], 'kcal/mol') };
      }
      const { held, begun } = await underWay(() => failureOf(worker.appendResults(message())));
      await swept(() => world.start(org, id, 2));
      held.release({ answered: false });
      await victim.kill();
      expect(await begun).toBeDefined();
      expect(keysOf(jobId)).toHaveLength(1);
      await age();
      await world.materialize(org);
      await nothingLeft(jobId);
    } finally {
      await victim.close();
    }
  },
  2 * MINUTE_MS,
);
