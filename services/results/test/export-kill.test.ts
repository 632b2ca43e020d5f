import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient } from '@connectrpc/connect';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { MINUTE_MS, sleep } from '@mad/process';
import { ExportFormat, ExportService, ExportState } from '@mad/proto/results';
import { served, ServiceProcess } from '@mad/testing';
import { beginExport, endedExport, partOf } from './support/exported.ts';
import { openWorld, rows, similarity, type Organization, type World } from './support/world.ts';

const PART_ROWS = 1000;
const KILLS = 4;

let world: World;
let org: Organization;
let victim: ServiceProcess;

beforeEach(async () => {
  world = await openWorld({ exportPartRows: PART_ROWS });
  org = await world.organization();
  victim = await ServiceProcess.of('results', world.environment);
});

afterEach(async () => {
  await victim?.close();
  await world?.close();
});

/** A finished job of `count` hits, the first computed, the others as if they had been with it. */
async function largeJob(count: number): Promise<string> {
  const { jobId, runnable } = await world.materialize(org, { smiles: ['CCO'], plans: [similarity()] });
  await world.run(org, runnable[0]!.taskExecutionId, () => ({ score: 0.5, resultData: { similarity: 0.5 } }));
  await rows(
    org,
    `INSERT INTO task_results (job_id, task_id, item_no, molecule_id, molecule_name, smiles, status, input_signature, score,
        result_data, task_execution_id, ended_at, ended_seq, molecular_weight, logp, tpsa, hbd, hba, rotatable_bonds)
      SELECT job_id, task_id, n, gen_random_uuid(), 'molecule, "' || n || '"', 'C(' || n || ')', 'scored', input_signature,
        (n::bigint * 7919 % 10007) / 10007.0, jsonb_build_object('similarity', n), task_execution_id, now(), ended_seq,
        100 + n % 400, 1, 2, 3, 4, 5
      FROM task_results, generate_series(2, $2::int) n WHERE job_id = $1 AND item_no = 1`,
    [jobId, count],
  );
  await rows(org, 'ANALYZE task_results');
  return jobId;
}

test.each([
  ['CSV', ExportFormat.CSV],
  ['Parquet', ExportFormat.PARQUET],
])(
  'an export whose process is killed again and again ends with the very files of one that was let be: %s',
  async (_name, format) => {
    const jobId = await largeJob(40_000);
    const calm = await beginExport(world.exports, org, { jobId, format });
    const whole = (await endedExport(world.exports, org, jobId, calm)).export;
    expect(whole).toMatchObject({ state: ExportState.COMPLETED, rows: 40_000n });

    const exports = createClient(ExportService, victim.transport());
    victim.start();
    const exportId = await served(() => beginExport(exports, org, { jobId, format }));
    const done = async () => {
      const [row] = await rows<{ parts: number; writing: number; state: string }>(
        org,
        `SELECT (SELECT count(*)::int FROM export_parts p WHERE p.export_id = e.export_id) AS parts, state,
            (SELECT count(*)::int FROM stored_objects o WHERE o.owner_id = e.export_id AND o.state = 'writing') AS writing
          FROM exports e WHERE export_id = $1`,
        [exportId],
      );
      return row!;
    };
    const killedAt: { parts: number; writing: number }[] = [];
    for (let kill = 0; kill < KILLS; kill += 1) {
      // In the middle of a part, each time some parts later.
      const goal = (killedAt.at(-1)?.parts ?? 0) + 1 + kill;
      for (let now = await done(); now.parts < goal || now.writing === 0; now = await done()) {
        if (now.state !== 'running') break;
        await sleep(2);
      }
      await victim.kill();
      killedAt.push(await done());
      // What waiting for the lease's end would do.
      await rows(org, 'UPDATE exports SET lease_until = now() WHERE export_id = $1 AND lease_until IS NOT NULL', [
        exportId,
      ]);
      victim.start();
      await served(() => exports.getExport({ orgId: org.orgId, jobId, exportId }, headers()));
    }
    expect(killedAt.filter(({ parts }) => parts > 0 && parts < 40).length).toBeGreaterThanOrEqual(2);
    const after = (await endedExport(exports, org, jobId, exportId)).export;
    expect(after).toMatchObject({ state: ExportState.COMPLETED, rows: 40_000n });
    expect(after.parts).toEqual(whole.parts);
    for (const part of after.parts) await partOf(exports, org, { jobId, exportId }, part);

    // What the killed ones left is swept when the next job begins.
    await rows(org, `UPDATE stored_objects SET created_at = now() - interval '1 hour' WHERE state = 'writing'`);
    await world.materialize(org, { smiles: ['CCCCCC'], plans: [similarity()] });
    const folder = join(world.objectFolder, 'orgs', org.orgId, 'exports', exportId);
    for (let round = 0; (await readdir(folder)).length !== after.parts.length; round += 1) {
      if (round === 400) throw new Error(`${(await readdir(folder)).length} files for ${after.parts.length} parts`);
      await sleep(25);
    }
  },
  5 * MINUTE_MS,
);

const headers = () => ({ headers: { authorization: `Bearer ${org.token}` } });

test(
  'ten times as many hits need no more memory',
  async () => {
    const jobId = await largeJob(300_000);
    // A collector that may wait lets memory grow whatever is kept: it gets no room to.
    const small = '--max-old-space-size=80 --max-semi-space-size=8';
    victim.start({ RESULTS_EXPORT_PART_ROWS: '100000', NODE_OPTIONS: small });
    const exports = createClient(ExportService, victim.transport());
    const run = async (format: ExportFormat, filter: string, count: bigint) => {
      const exportId = await served(() => beginExport(exports, org, { jobId, format, filter }));
      const { export: ended } = await endedExport(exports, org, jobId, exportId);
      expect(ended).toMatchObject({ state: ExportState.COMPLETED, rows: count });
      return victim.peakMb();
    };
    const formats = [ExportFormat.CSV, ExportFormat.JSON_LINES, ExportFormat.PARQUET];
    // So that what the process needs anyhow is there.
    let before = 0;
    for (const format of formats) before = await run(format, 'rank <= 30000', 30_000n);
    let after = 0;
    for (const format of formats) after = await run(format, '', 300_000n);
    process.stdout.write(`peak memory of results, 30,000 and 300,000 hits: ${before} and ${after} MiB\n`);
    // Held at once, the rows would be some 300 MiB.
    expect(after - before).toBeLessThan(100);
  },
  5 * MINUTE_MS,
);
