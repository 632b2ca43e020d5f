import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient } from '@connectrpc/connect';
import { serviceTokenInterceptor } from '@mad/auth';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { MINUTE_MS, sleep } from '@mad/process';
import { ExecutionService, JobRunService } from '@mad/proto/results';
import { grpcTransport } from '@mad/rpc';
import { served, ServiceProcess, serviceToken } from '@mad/testing';
import { columnsOf, type Outcome } from './support/columns.ts';
import { atomAt, readSdf } from './support/structures.ts';
import { bearer, docking, openWorld, rows, type Organization, type World } from './support/world.ts';

const KILLS = 8;
const ITEMS_A_BATCH = 100;

let world: World;
let org: Organization;
let victim: ServiceProcess;

beforeAll(async () => {
  world = await openWorld();
  org = await world.organization();
  victim = await ServiceProcess.of('results', world.environment);
});

afterAll(async () => {
  await victim?.close();
  await world?.close();
});

const docked = (itemNo: number): Outcome => ({
  itemNo,
  score: -8,
  poses: [1, 2, 3, 4].map((poseRank) => ({
    replicate: 1,
    poseRank,
    score: -8 + poseRank / 10,
    rawScore: -5,
    rmsdLb: 0,
    rmsdUb: 0,
    molBlock: atomAt(itemNo * 10 + poseRank),
  })),
});

async function filesOf(jobId: string): Promise<string[]> {
  const names = await readdir(join(world.objectFolder, 'orgs', org.orgId, 'poses', jobId)).catch((): string[] => []);
  return names.sort();
}

test(
  'killed again and again between object and row: no row points nowhere, no pose is lost, no object is left over',
  async () => {
    const batches = KILLS + 4;
    const smiles = Array.from(
      { length: batches * ITEMS_A_BATCH },
      (_, index) => `C${'N'.repeat(1 + (index % 500))}${'O'.repeat(Math.floor(index / 500))}`,
    );
    const { jobId, runnable } = await world.materialize(org, { smiles, plans: [docking({ chunkSize: 10_000 })] });
    const id = runnable[0]!.taskExecutionId;
    await world.start(org, id);
    victim.start();
    const transport = grpcTransport(victim.address, {
      interceptors: [serviceTokenInterceptor(() => serviceToken('worker'))],
    });
    const worker = createClient(ExecutionService, transport);
    const reader = createClient(JobRunService, victim.transport());
    const send = (batch: number) => {
      const first = (batch - 1) * ITEMS_A_BATCH + 1;
      const outcomes = Array.from({ length: ITEMS_A_BATCH }, (_, index) => docked(first + index));
      async function* message() {
        yield { ...(await world.lease(org, id, 1)), batch, ...columnsOf(outcomes, 'kcal/mol') };
      }
      return worker.appendResults(message());
    };
    let interrupted = 0;
    for (let batch = 1; batch <= batches; batch += 1) {
      if (batch <= KILLS) {
        await served(() => reader.getJobRun({ orgId: org.orgId, jobId }, bearer(org.token)));
        const sent = send(batch).then(
          () => 'kept',
          () => 'cut',
        );
        // Each time at another moment: while it is noted, written, copied or committed.
        const noted = async () =>
          (await rows(org, `SELECT FROM stored_objects WHERE owner_id = $1 AND state = 'writing'`, [jobId])).length;
        const before = await noted();
        for (let look = 0; look < 200 && (await noted()) === before; look += 1) await sleep(1);
        await sleep(batch % 4);
        await victim.kill();
        if ((await sent) === 'cut') interrupted += 1;
        victim.start();
      }
      // What a worker does: the same batch under its number, until it is known to be kept.
      expect((await served(() => send(batch))).nextBatch).toBe(batch + 1);
    }
    expect(interrupted).toBeGreaterThanOrEqual(1);
    transport.close();
    await world.finish(org, id);

    const poses = await rows<{ object: string }>(
      org,
      'SELECT pose_object AS object FROM docking_results WHERE job_id = $1',
      [jobId],
    );
    expect(poses).toHaveLength(smiles.length * 4);
    const pieces: Uint8Array[] = [];
    for await (const { content } of world.poses.downloadPoses({ orgId: org.orgId, jobId }, bearer(org.token))) {
      pieces.push(content);
    }
    const places = readSdf(Buffer.concat(pieces).toString()).map(({ structure }) =>
      Number(structure.split('\n')[4]!.slice(0, 10)),
    );
    expect(places.toSorted((a, b) => a - b)).toEqual(smiles.map((_, index) => (index + 1) * 10 + 1));

    await rows(org, `UPDATE stored_objects SET created_at = now() - interval '1 hour' WHERE state = 'writing'`);
    await world.materialize(org, { smiles: ['CCCCCCCCC'], plans: [docking()] });
    const kept = [...new Set(poses.map(({ object }) => object))].sort();
    for (let round = 0; (await filesOf(jobId)).length !== kept.length; round += 1) {
      if (round === 400) throw new Error(`${(await filesOf(jobId)).length} files for ${kept.length} objects`);
      await sleep(25);
    }
    expect(await filesOf(jobId)).toEqual(kept);
  },
  5 * MINUTE_MS,
);
