import { createHash } from 'node:crypto';
import { MINUTE_MS, sleep, uuidv7 } from '@mad/process';
import { ExportFormat, ExportService, ExportState, type Export } from '@mad/proto/results';
import type { Chaos, Scenario } from '../scenario.ts';
import { Screening } from '../science.ts';
import { insist } from '../system.ts';

const ROWS = 40_000;
const KILLS_PER_EXPORT = 6;
const KILL_WITHIN_MS = 500;
const LOOK_MS = 50;
const FORMATS = [ExportFormat.CSV, ExportFormat.PARQUET, ExportFormat.JSON_LINES] as const;

/** Exports whose writer, and whose database, die: each ends with the very files of one that was let be. */
export const exports: Scenario = {
  name: 'exports',
  weight: 4,
  async run(chaos, kills) {
    const screening = await Screening.of(chaos.system);
    const { orgId } = screening.org;
    const jobId = await screening.begin();
    await screening.judged(jobId);
    await enlarge(chaos, orgId, jobId);
    const calm = new Map<ExportFormat, Export>();
    const problems: string[] = [];
    const died: Record<string, number> = {};
    let [done, lost, doubled, written, idle] = [0, 0, 0, 0, 0];
    while (done < kills && idle < 3) {
      const format = FORMATS[written % FORMATS.length]!;
      if (!calm.has(format)) {
        const exportId = await begin(screening, jobId, format);
        calm.set(format, await ended(chaos, screening, jobId, exportId));
      }
      const before = done;
      const exportId = await begin(screening, jobId, format);
      for (let kill = 0; kill < KILLS_PER_EXPORT && done < kills; kill += 1) {
        await sleep(chaos.random() * KILL_WITHIN_MS);
        const sql = 'SELECT state FROM results.exports WHERE export_id = $1';
        const [now] = await chaos.system.inside<{ state: string }>(orgId, sql, exportId);
        if (now!.state !== 'running') break;
        const victim = chaos.random() < 0.75 ? 'results' : 'postgres';
        if (victim === 'results') await chaos.system.restart('results');
        else await chaos.system.crashServer(await chaos.system.serverOf(orgId));
        died[victim] = (died[victim] ?? 0) + 1;
        done += 1;
      }
      idle = done === before ? idle + 1 : 0;
      written += 1;
      const whole = calm.get(format)!;
      const after = await ended(chaos, screening, jobId, exportId);
      const off = Number(whole.rows) - Number(after.rows);
      lost += Math.max(0, off);
      doubled += Math.max(0, -off);
      const digests = (one: Export) => one.parts.map(({ partNo, sha256 }) => `${partNo} ${sha256}`).join();
      if (after.state !== ExportState.COMPLETED) problems.push(`an export is ${ExportState[after.state]}`);
      else if (digests(after) !== digests(whole))
        problems.push(`an export has other bytes than a calm one: ${exportId}`);
      problems.push(...(await misfits(screening, jobId, after)));
      chaos.progress(`${done} of ${kills} in ${written} exports`);
    }
    return { kills: done, lost, doubled, gaps: 0, problems, notes: { died, exports: written, rows: ROWS } };
  },
};

/** Makes a job of a few hundred hits one of many, as if they had been computed with it. */
async function enlarge({ system }: Chaos, orgId: string, jobId: string): Promise<void> {
  await system.inside(
    orgId,
    `INSERT INTO results.task_results (job_id, task_id, item_no, molecule_id, molecule_name, smiles, status, input_signature,
        score, result_data, task_execution_id, ended_at, ended_seq, molecular_weight, logp, tpsa, hbd, hba, rotatable_bonds)
      SELECT job_id, task_id, n, gen_random_uuid(), 'molecule, "' || n || '"', 'C(' || n || ')', 'scored', input_signature,
        (n::bigint * 7919 % 10007) / 10007.0, jsonb_build_object('similarity', n), task_execution_id, now(), ended_seq,
        100 + n % 400, 1, 2, 3, 4, 5
      FROM results.task_results, generate_series(1001, ${ROWS + 1000}) n WHERE job_id = $1 AND item_no = 1`,
    jobId,
  );
}

async function begin(screening: Screening, jobId: string, format: ExportFormat): Promise<string> {
  const requestId = uuidv7();
  const { orgId } = screening.org;
  const made = await insist(async () =>
    (await screening.person()).client(ExportService).createExport({ orgId, requestId, jobId, format }),
  );
  return made.export!.exportId;
}

/** Waits for an export's end, and does not wait for the lease of who died: half a minute each. */
async function ended({ system }: Chaos, screening: Screening, jobId: string, exportId: string): Promise<Export> {
  const { orgId } = screening.org;
  const abandon = `UPDATE results.exports SET lease_until = now() WHERE export_id = $1 AND lease_until IS NOT NULL
    AND NOT EXISTS (SELECT FROM results.stored_objects WHERE owner_id = export_id AND created_at > now() - interval '2 seconds')`;
  for (const until = performance.now() + 3 * MINUTE_MS; performance.now() < until; await sleep(LOOK_MS)) {
    const answer = await insist(async () =>
      (await screening.person()).client(ExportService).getExport({ orgId, jobId, exportId }),
    );
    if (answer.export!.state !== ExportState.RUNNING) return answer.export!;
    await system.inside(orgId, abandon, exportId);
  }
  throw new Error(`export ${exportId} does not end`);
}

/** Downloads every part and compares it with what the manifest says of it. */
async function misfits(screening: Screening, jobId: string, { exportId, parts }: Export): Promise<string[]> {
  const { orgId } = screening.org;
  const client = (await screening.person()).client(ExportService);
  const wrong: string[] = [];
  for (const { partNo, sha256, sizeBytes } of parts) {
    const { digest, bytes } = await insist(async () => {
      const hash = createHash('sha256');
      let size = 0;
      for await (const { content } of client.downloadExport({ orgId, jobId, exportId, partNo })) {
        hash.update(content);
        size += content.length;
      }
      return { digest: hash.digest('hex'), bytes: size };
    });
    if (digest !== sha256 || BigInt(bytes) !== sizeBytes) wrong.push(`part ${partNo} of ${exportId} is another one`);
  }
  return wrong;
}
