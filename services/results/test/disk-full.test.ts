import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { ConnectError } from '@connectrpc/connect';
import { openSmallDisk, smallDiskMissing, type SmallDisk } from '@mad/testing';
import { columnsOf, type Outcome } from './support/columns.ts';
import { failureOf } from './support/errors.ts';
import { newSmiles } from './support/smiles.ts';
import { docking, openWorld, rows, type Organization, type World } from './support/world.ts';

const missing = smallDiskMissing();
const testOnDisk = missing === undefined ? test : test.skip;
const ITEMS = 2_000;
const POSES = 20;
/** Less than the poses of one batch, more than anything else that is written beside them. */
const ROOM = 1_000_000;

let world: World;
let disk: SmallDisk;
let org: Organization;
let neighbour: Organization;

beforeAll(async () => {
  if (missing !== undefined) return;
  world = await openWorld();
  [org, neighbour] = [await world.organization(), await world.organization()];
  disk = await openSmallDisk(96);
  await disk.hold(org.database.name);
});

afterAll(async () => {
  await world?.close();
  await disk?.close();
});

async function startedJob(of: Organization) {
  const smiles = newSmiles(20);
  while (smiles.length < ITEMS)
    smiles.push(`C${'O'.repeat(smiles.length % 500)}.${'N'.repeat(1 + Math.floor(smiles.length / 500))}`);
  const made = await world.materialize(of, { smiles, plans: [docking({ chunkSize: 10_000 })] });
  const id = made.runnable[0]!.taskExecutionId;
  await world.start(of, id);
  return { id, jobId: made.jobId, lease: await world.lease(of, id, 1) };
}

/** Items of which each has twenty poses, best first. */
const docked = (from: number, to: number): Outcome[] =>
  Array.from({ length: to - from + 1 }, (_one, index) => ({
    itemNo: from + index,
    score: -7,
    poses: Array.from({ length: POSES }, (_pose, rank) => ({
      replicate: 1,
      poseRank: rank + 1,
      score: -7 + rank / 100,
      rawScore: -9,
      rmsdLb: 0,
      rmsdUb: 0,
    })),
  }));

const countsOf = (of: Organization, jobId: string) =>
  rows<{ items: number; poses: number; places: number }>(
    of,
    `SELECT (SELECT count(*)::int FROM task_results WHERE job_id = $1 AND status = 'scored') AS items,
       count(*)::int AS poses, count(DISTINCT (item_no, pose_rank))::int AS places FROM docking_results WHERE job_id = $1`,
    [jobId],
  );

testOnDisk(
  `a disk that is full refuses what comes in by name, keeps what was in, holds up no neighbour, and is gone on with${
    missing === undefined ? '' : ` (skipped: ${missing})`
  }`,
  async () => {
    const [full, other] = [await startedJob(org), await startedJob(neighbour)];
    const first = { ...full.lease, batch: 1, ...columnsOf(docked(1, 100), 'kcal/mol') };
    const second = { ...full.lease, batch: 2, ...columnsOf(docked(101, ITEMS), 'kcal/mol') };
    expect(await world.stream([first])).toMatchObject({ received: 100, nextBatch: 2 });

    await disk.fill(ROOM);
    const refused = await world.stream([second]).catch((error: unknown) => error);
    expect((refused as ConnectError).rawMessage).toBe("the disk of the database's server is full");
    expect(await failureOf(Promise.reject(refused))).toEqual({ code: 'unavailable', reason: 'DATABASE_UNAVAILABLE' });
    // Read on, and what was in stays in.
    expect((await world.start(org, full.id)).nextBatch).toBe(2);
    const beside = { ...other.lease, batch: 1, ...columnsOf(docked(1, ITEMS), 'kcal/mol') };
    expect(await world.stream([beside])).toMatchObject({ received: ITEMS });
    await world.finish(neighbour, other.id);

    await disk.relieve();
    expect(await world.stream([second])).toMatchObject({ received: ITEMS, nextBatch: 3 });
    await world.finish(org, full.id);
    const whole = { items: ITEMS, poses: ITEMS * POSES, places: ITEMS * POSES };
    expect(await countsOf(org, full.jobId)).toEqual([whole]);
    expect(await countsOf(neighbour, other.jobId)).toEqual([whole]);
  },
  60_000,
);
