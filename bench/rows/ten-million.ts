import { createClient, type Client } from '@connectrpc/connect';
import { createLeaseSigner, createServiceTokenSigner, serviceTokenInterceptor } from '@mad/auth';
import { HOUR_MS, SECOND_MS, sleep, uuidv7 } from '@mad/process';
import { RouteService } from '@mad/proto/provisioner';
import {
  ExecutionService,
  ExportFormat,
  ExportService,
  ExportState,
  JobRunService,
  JobStatisticsService,
} from '@mad/proto/results';
import { ServiceProcess, served } from '@mad/testing/service-process';
import type pg from 'pg';
import { repeat, summarize } from '../measure.ts';
import { dockingBatch, ITEMS_PER_BATCH, POSES_PER_ITEM, PLAN } from '../poses.ts';
import { scaled, type Bench, type Line, type Row } from '../row.ts';
import { SCHEMA, type BenchSystem } from '../system.ts';

/** Poses in one job of one tenant; BENCH_POSES changes it. */
const POSES = 10_000_000;
const BATCHES = 4;
const ITEMS_PER_EXECUTION = BATCHES * ITEMS_PER_BATCH;
const POSES_PER_EXECUTION = ITEMS_PER_EXECUTION * POSES_PER_ITEM;
/** What rates are told by. */
const MILLION = 1_000_000;
const PAGE = 100;
const WALK = 1_000;
const READS = 50;

/** A job as large as anybody's: written by the worker's stream, finished, read and exported through a service of its own. */
export const tenMillion: Row = {
  name: 'ten-million',
  soak: true,
  async run(bench) {
    const system = await bench.system();
    const poses = Number(process.env['BENCH_POSES'] ?? scaled(bench, POSES, POSES_PER_EXECUTION));
    const executions = Math.max(1, Math.round(poses / POSES_PER_EXECUTION));
    const { orgId } = await system.newOrganization('results');
    const routes = createClient(RouteService, system.transport('provisioner', 'results'));
    const { database } = (await routes.getRoute({ orgId, schema: SCHEMA })).route!;
    const admin = await system.admin(database);
    // A process of its own: its memory is nobody else's.
    const results = await ServiceProcess.of('results', { ...system.environment, RESULTS_NODE: 'ten-million' });
    try {
      results.start();
      const jobId = await pendingJob(admin, executions, bench);
      await waitFor(system, results, orgId, jobId);
      const rates = await ingest(bench, system, results, { orgId, jobId, executions, admin });
      const ingestPeak = await results.peakMb();
      const reading = await read(bench, system, results, { orgId, jobId, items: executions * ITEMS_PER_EXECUTION });
      const notes = { poses: executions * POSES_PER_EXECUTION, items: executions * ITEMS_PER_EXECUTION };
      const thirds = Math.max(1, Math.floor(rates.length / 3));
      const mean = (some: number[]) => some.reduce((sum, rate) => sum + rate, 0) / some.length;
      const decay = 100 * (1 - mean(rates.slice(-thirds)) / mean(rates.slice(0, thirds)));
      const lines: Line[] = [
        { name: 'ten-million-ingest', unit: 'poses/s', ours: rates },
        { name: 'ten-million-decay', unit: '%', target: { of: 'value', atMost: 20 }, ours: [decay] },
        ...reading,
        {
          name: 'ten-million-memory',
          unit: 'MiB at most',
          target: { of: 'value', atMost: 512 },
          ours: [await results.peakMb()],
          notes: { after_ingest: ingestPeak },
        },
      ];
      return lines.map((line) => ({ ...line, notes: { ...notes, ...line.notes } }));
    } finally {
      await results.close();
      await admin.end();
    }
  },
};

/** A running job of many executions whose items are all pending, put there directly. */
async function pendingJob(admin: pg.Client, executions: number, bench: Bench): Promise<string> {
  const jobId = uuidv7();
  const items = executions * ITEMS_PER_EXECUTION;
  bench.progress(`${items} items of one job`);
  await admin.query(`SELECT results.ensure_partitions(now()::date)`);
  await admin.query(
    `INSERT INTO results.jobs (job_id, pipeline_version_id, status, input_signature, requested, pending, started_at)
     VALUES ($1, $1, 'running', repeat('ab', 32), $2, $2, now())`,
    [jobId, items],
  );
  await admin.query(
    `INSERT INTO results.job_tasks (job_id, task_id, position, plan, bin_width, requested, pending)
     VALUES ($1, 'dock', 1, $3, 0.1, $2, $2)`,
    [jobId, items, JSON.stringify(PLAN)],
  );
  return jobId;
}

/** Until the new process serves. */
async function waitFor(system: BenchSystem, results: ServiceProcess, orgId: string, jobId: string): Promise<void> {
  const jobs = createClient(
    JobRunService,
    results.as(() => system.memberToken(orgId)),
  );
  await served(() => jobs.getJobRun({ orgId, jobId }));
}

interface Run {
  orgId: string;
  jobId: string;
  executions: number;
  admin: pg.Client;
}

/** Sends every execution's batches and finishes it; answers the rates, one for each million, or execution where there are few. */
async function ingest(
  bench: Bench,
  system: BenchSystem,
  results: ServiceProcess,
  { orgId, jobId, executions, admin }: Run,
): Promise<number[]> {
  const { signingKeys } = system.secrets;
  const signer = createServiceTokenSigner({ service: 'worker', privateJwk: signingKeys.worker.privateJwk });
  const client = createClient(ExecutionService, results.transport([serviceTokenInterceptor(signer)]));
  const signLease = createLeaseSigner(signingKeys.catalog.privateJwk);
  const perRate = executions * POSES_PER_EXECUTION >= 2 * MILLION ? MILLION / POSES_PER_EXECUTION : 1;
  const rates: number[] = [];
  let ms = 0;
  for (let chunk = 1; chunk <= executions; chunk += 1) {
    const taskExecutionId = await runningExecution(admin, jobId, chunk);
    const lease = { orgId, taskExecutionId, attempt: 1 };
    const leaseToken = await signLease({ ...lease, worker: 'bench' }, new Date(Date.now() + HOUR_MS));
    const first = (chunk - 1) * ITEMS_PER_EXECUTION;
    const batches = Array.from({ length: BATCHES }, (_, index) => ({
      ...lease,
      leaseToken,
      ...dockingBatch(index + 1, first + index * ITEMS_PER_BATCH),
    }));
    const start = performance.now();
    const received = await appended(client, batches);
    await finished(client, { ...lease, leaseToken });
    if (received !== ITEMS_PER_EXECUTION) throw new Error(`${received} items arrived of ${ITEMS_PER_EXECUTION}`);
    ms += performance.now() - start;
    if (chunk % perRate === 0) {
      const rate = (perRate * POSES_PER_EXECUTION * SECOND_MS) / ms;
      rates.push(rate);
      bench.progress(`${(chunk * POSES_PER_EXECUTION) / MILLION} million poses, ${Math.round(rate)} poses/s`);
      ms = 0;
    }
  }
  return rates;
}

type Batch = ReturnType<typeof dockingBatch>;

async function appended(client: Client<typeof ExecutionService>, batches: Batch[]): Promise<number> {
  async function* sent() {
    yield* batches;
  }
  return (await client.appendResults(sent(), { timeoutMs: HOUR_MS })).received;
}

/** Catalog knows nothing of this job: results says that it has done its part, and that catalog could not be told. */
async function finished(
  client: Client<typeof ExecutionService>,
  lease: { orgId: string; taskExecutionId: string; attempt: number; leaseToken: string },
): Promise<void> {
  await client.finishExecution(lease, { timeoutMs: HOUR_MS }).catch((error: unknown) => {
    if (!String(error).includes('catalog could not be told')) throw error;
  });
}

async function runningExecution(admin: pg.Client, jobId: string, chunk: number): Promise<string> {
  const taskExecutionId = uuidv7();
  await admin.query(
    `INSERT INTO results.task_executions (task_execution_id, job_id, task_id, chunk_no, attempt, status, worker, started_at)
     VALUES ($2, $1, 'dock', $3, 1, 'running', 'bench', now())`,
    [jobId, taskExecutionId, chunk],
  );
  await admin.query(
    `INSERT INTO results.task_results (job_id, task_id, item_no, molecule_id, smiles, input_signature, task_execution_id)
     SELECT $1, 'dock', n, gen_random_uuid(), 'CC(=O)Oc1ccccc1C(=O)O', encode(sha256(n::text::bytea), 'hex'), $2
     FROM generate_series($3::int, $4::int) n`,
    [jobId, taskExecutionId, (chunk - 1) * ITEMS_PER_EXECUTION + 1, chunk * ITEMS_PER_EXECUTION],
  );
  return taskExecutionId;
}

/** First page, a page behind four fifths of the hits, the histogram, and an export of all, as a member asks for them. */
async function read(
  bench: Bench,
  system: BenchSystem,
  results: ServiceProcess,
  { orgId, jobId, items }: { orgId: string; jobId: string; items: number },
): Promise<Line[]> {
  const transport = results.as(() => Promise.resolve(token));
  let token = await system.memberToken(orgId);
  const jobs = createClient(JobRunService, transport);
  const statistics = createClient(JobStatisticsService, transport);
  const exports = createClient(ExportService, transport);
  const ask = { orgId, jobId, taskId: 'dock' };
  bench.progress('walking to the deep page');
  let deep = '';
  for (let passed = 0; passed < items * 0.8; passed += WALK) {
    ({ nextPageToken: deep } = await jobs.listHits({ ...ask, pageSize: WALK, pageToken: deep }));
    if (deep === '') throw new Error(`the hits end after ${passed} of ${items}`);
  }
  token = await system.memberToken(orgId);
  const latency = async (name: string, call: () => Promise<unknown>): Promise<Line> => ({
    name,
    unit: 'ms',
    ours: await repeat(scaled(bench, READS, 5), async () => {
      const start = performance.now();
      await call();
      return performance.now() - start;
    }),
  });
  const page = async (pageToken: string): Promise<void> => {
    const { hits } = await jobs.listHits({ ...ask, pageSize: PAGE, pageToken });
    if (hits.length !== PAGE) throw new Error(`a page has ${hits.length} hits`);
  };
  const lines = [
    await latency('ten-million-first-page', () => page('')),
    await latency('ten-million-deep-page', () => page(deep)),
    await latency('ten-million-histogram', () => statistics.getScoreHistogram(ask)),
  ];
  const [first, far] = lines.map(({ ours }) => summarize(ours).median) as [number, number];
  lines.push({
    name: 'ten-million-depth',
    unit: '× first page',
    target: { of: 'value', atMost: 2 },
    ours: [far / first],
  });
  bench.progress(`exporting ${items} hits`);
  const began = performance.now();
  const request = { ...ask, requestId: uuidv7(), format: ExportFormat.CSV };
  const { exportId } = (await exports.createExport(request)).export!;
  for (let refreshed = performance.now(); ; await sleep(SECOND_MS / 4)) {
    if (performance.now() - refreshed > 5 * 60 * SECOND_MS) {
      token = await system.memberToken(orgId);
      refreshed = performance.now();
    }
    const { export: now } = await exports.getExport({ orgId, jobId, exportId });
    if (now!.state === ExportState.RUNNING) continue;
    if (now!.state !== ExportState.COMPLETED || Number(now!.rows) !== items)
      throw new Error(`the export is ${ExportState[now!.state]} with ${now!.rows} of ${items} rows`);
    break;
  }
  const rate = items / ((performance.now() - began) / SECOND_MS);
  return [...lines, { name: 'ten-million-export', unit: 'rows/s', ours: [rate] }];
}
