import { pipeline } from 'node:stream/promises';
import { Readable } from 'node:stream';
import { createLogger, uuidv7 } from '@mad/process';
import type { Route } from '@mad/proto/provisioner';
import { resultsEntities } from '@mad/results';
import { openTenants, type TenantTx } from '@mad/tenancy';
import pg from 'pg';
import { from } from 'pg-copy-streams';
import { parseFilter } from '../../services/results/src/domain/hit-filter.ts';
import { readHits, type HitCursor } from '../../services/results/src/rpc/hit-rows.ts';
import { requireJob } from '../../services/results/src/runs/job-image.ts';
import { binaryChunks, uuidBytes, type CopyType, type CopyValue } from '../../services/results/src/runs/copy.ts';
import { readHistogram } from '../../services/results/src/runs/statistics.ts';
import { interleave, type Samples } from '../measure.ts';
import { scaled, type Bench, type Line, type Row, type Target } from '../row.ts';
import { SCHEMA } from '../system.ts';

/** Scored items of the one job; BENCH_HITS changes it. */
const HITS = 4_000_000;
const PAGE = 100;
/** Reads of one sample: one after the other, so that a sample is a latency. */
const READS = 200;
const PLAN = { taskId: 'dock', task: 'vina.dock', engine: 'vina@1.2.3', scoreUnits: 'kcal/mol', lowerIsBetter: true };
const NO_FILTER = { filter: parseFilter(''), bestPerMolecule: false, size: PAGE };

const COLUMNS: Record<string, CopyType> = {
  job_id: 'uuid',
  task_id: 'text',
  item_no: 'int4',
  molecule_id: 'uuid',
  smiles: 'text',
  status: 'text',
  input_signature: 'text',
  score: 'float8',
  result_data: 'jsonb',
  confidence_score: 'float8',
  ended_at: 'timestamptz',
};

/** What a scientist opens first, among millions: the best hits, a page far behind them, the histogram; against `SELECT 1`. */
export const topHits: Row = {
  name: 'top-hits',
  async run(bench) {
    const system = await bench.system();
    const route = await system.newTenant();
    const hits = scaled(bench, Number(process.env['BENCH_HITS'] ?? HITS), 20_000);
    const admin = await system.admin(route.database);
    const tenants = await openTenants({
      schema: SCHEMA,
      entities: resultsEntities,
      routes: system.transport('provisioner', 'results'),
      node: 'bench',
      logger: createLogger('bench', { level: 'silent' }),
    });
    const raw = new pg.Client(connectionOf(route));
    await raw.connect();
    try {
      bench.progress(`storing ${hits} items`);
      const jobId = await fill(admin, hits, bench);
      const deep = await cursorAt(admin, jobId, Math.floor(hits * 0.8));
      const page = (after: HitCursor | undefined) => async (tx: TenantTx) => {
        const job = await requireJob(tx, jobId);
        return (await readHits(tx, jobId, job.tasks[0]!, { ...NO_FILTER, after })).rows.length === PAGE;
      };
      const line = async (name: string, atMost: number, read: (tx: TenantTx) => Promise<boolean>): Promise<Line> => {
        const target: Target = { of: 'ratio', atMost };
        const samples = await latencies(bench, raw, () => tenants.read(route.orgId, read));
        return { name, unit: 'ms', target, ...samples, notes: { items: hits, page: PAGE } };
      };
      return [
        await line('top-hits', 8, page(undefined)),
        await line('deep-page', 8, page(deep)),
        await line('histogram', 5, async (tx) => {
          await requireJob(tx, jobId);
          return (await readHistogram(tx, jobId, PLAN.taskId)).length > 10;
        }),
      ];
    } finally {
      await Promise.all([tenants.close(), raw.end(), admin.end()]);
    }
  },
};

function connectionOf({ host, port, user, password, database }: Route): pg.ClientConfig {
  return { host, port, user, password, database };
}

/** Milliseconds of one read and of `SELECT 1`, prepared, on a connection of its own; both as the mean of many in a row. */
async function latencies(bench: Bench, raw: pg.Client, read: () => Promise<boolean>): Promise<Samples> {
  const reads = scaled(bench, READS, 20);
  const mean = async (one: () => Promise<unknown>): Promise<number> => {
    const start = performance.now();
    for (let count = 0; count < reads; count += 1) await one();
    return (performance.now() - start) / reads;
  };
  return interleave(scaled(bench, 15, 2), {
    ours: () =>
      mean(async () => {
        if (!(await read())) throw new Error('less was read than is there');
      }),
    floor: () => mean(() => raw.query({ name: 'one', text: 'SELECT 1', values: [] })),
  });
}

/** One finished job, its items by COPY; what looks after every row is away meanwhile and made again afterwards. */
async function fill(admin: pg.Client, hits: number, bench: Bench): Promise<string> {
  const jobId = uuidv7();
  await admin.query(
    `INSERT INTO results.jobs (job_id, pipeline_version_id, status, input_signature, requested, scored, ended_at)
     VALUES ($1, $1, 'completed', repeat('ab', 32), $2, $2, now())`,
    [jobId, hits],
  );
  await admin.query(
    `INSERT INTO results.job_tasks (job_id, task_id, position, plan, bin_width, requested, scored)
     VALUES ($1, 'dock', 1, $3, 0.1, $2, $2)`,
    [jobId, hits, JSON.stringify(PLAN)],
  );
  const { rows: indexes } = await admin.query<{ indexname: string; indexdef: string }>(
    `SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'results' AND tablename = 'task_results' AND indexname LIKE 'idx%'`,
  );
  for (const { indexname } of indexes) await admin.query(`DROP INDEX results.${pg.escapeIdentifier(indexname)}`);
  await admin.query('SET session_replication_role = replica');
  const sql = `COPY results.task_results (${Object.keys(COLUMNS).join(', ')}) FROM STDIN (FORMAT binary)`;
  await pipeline(Readable.from(binaryChunks(Object.values(COLUMNS), itemsOf(jobId, hits))), admin.query(from(sql)));
  bench.progress('making the indexes');
  await admin.query(`SET maintenance_work_mem = '256MB'`);
  for (const { indexdef } of indexes) await admin.query(indexdef);
  await admin.query(
    `INSERT INTO results.score_histograms SELECT $1, 'dock', results.score_bin(score, 0.1), count(*)
     FROM results.task_results WHERE job_id = $1 GROUP BY 3`,
    [jobId],
  );
  await admin.query('VACUUM ANALYZE results.task_results, results.score_histograms');
  return jobId;
}

function* itemsOf(jobId: string, hits: number): Generator<CopyValue[]> {
  const [job, molecule, ended, signature] = [
    uuidBytes(jobId),
    Buffer.from(uuidBytes(uuidv7())),
    new Date(),
    'cd'.repeat(32),
  ];
  for (let itemNo = 1; itemNo <= hits; itemNo += 1) {
    molecule.writeUInt32BE(itemNo, 12);
    // Three decimals, as docking gives them: most scores are shared by many.
    const score = Math.round((-6.5 + 2 * Math.sin(itemNo) + Math.cos(itemNo * 1.7)) * 1000) / 1000;
    const data = `{"affinity": ${score}, "torsions": ${itemNo % 9}}`;
    yield [job, PLAN.taskId, itemNo, molecule, 'CC(=O)Oc1ccccc1C(=O)O', 'scored', signature, score, data, null, ended];
  }
}

/** Where a page begins that far behind the best. Found the slow way, once. */
async function cursorAt(admin: pg.Client, jobId: string, rank: number): Promise<HitCursor> {
  const { rows } = await admin.query<{ score: number; item_no: number }>(
    `SELECT score, item_no FROM results.task_results WHERE job_id = $1 AND task_id = 'dock'
       AND status IN ('scored', 'cached') AND score IS NOT NULL ORDER BY score, item_no OFFSET $2 LIMIT 1`,
    [jobId, rank - 1],
  );
  return [rows[0]!.score, rows[0]!.item_no, rank];
}
