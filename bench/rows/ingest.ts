import { pipeline } from 'node:stream/promises';
import { Readable } from 'node:stream';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { createClient } from '@connectrpc/connect';
import { createLeaseSigner } from '@mad/auth';
import { MINUTE_MS, uuidv7 } from '@mad/process';
import type { Route } from '@mad/proto/provisioner';
import { ExecutionService, type AppendResultsRequestSchema } from '@mad/proto/results';
import pg from 'pg';
import { from } from 'pg-copy-streams';
import { binaryChunks, type CopyType, type CopyValue } from '../../services/results/src/runs/copy.ts';
import { interleave } from '../measure.ts';
import { dockingBatch, ITEMS_PER_BATCH, PLAN, POSES_PER_ITEM, scoreOf } from '../poses.ts';
import { scaled, type Row } from '../row.ts';

const BATCHES = 4;
const ITEMS = BATCHES * ITEMS_PER_BATCH;
const ROWS = ITEMS * POSES_PER_ITEM;

const COLUMNS: Record<string, CopyType> = {
  job_id: 'uuid',
  task_id: 'text',
  item_no: 'int4',
  replicate: 'int4',
  pose_rank: 'int4',
  molecule_id: 'uuid',
  score: 'float8',
  raw_score: 'float8',
  rmsd_lb: 'float8',
  rmsd_ub: 'float8',
  task_execution_id: 'uuid',
  chunk_no: 'int4',
};

type Batch = MessageInitShape<typeof AppendResultsRequestSchema>;

/** Poses by the stream of column batches a worker sends, against COPY of the same rows by one connection, ready-made. */
export const ingest: Row = {
  name: 'ingest',
  async run(bench) {
    const system = await bench.system();
    const route = await system.newTenant();
    const admin = await system.admin(route.database);
    const raw = new pg.Client({ ...connectionOf(route) });
    await raw.connect();
    const executions = createClient(ExecutionService, system.transport('results', 'worker'));
    const signLease = createLeaseSigner(system.secrets.signingKeys.catalog.privateJwk);
    try {
      const samples = await interleave(
        scaled(bench, 7, 2),
        {
          async ours() {
            const { jobId, executionId } = await runningJob(admin);
            const lease = { orgId: route.orgId, taskExecutionId: executionId, attempt: 1 };
            const leaseToken = await signLease({ ...lease, worker: 'bench' }, new Date(Date.now() + 10 * MINUTE_MS));
            const batches = Array.from({ length: BATCHES }, (_, index): Batch => ({
              ...lease,
              leaseToken,
              ...dockingBatch(index + 1, index * ITEMS_PER_BATCH),
            }));
            const start = performance.now();
            const { received } = await executions.appendResults(
              (async function* () {
                yield* batches;
              })(),
              { timeoutMs: 10 * MINUTE_MS },
            );
            const rate = (ROWS / (performance.now() - start)) * 1000;
            if (received !== ITEMS) throw new Error(`${received} items arrived of ${ITEMS} of ${jobId}`);
            return rate;
          },
          async floor() {
            const chunks = [...binaryChunks(Object.values(COLUMNS), rowsOf(uuidv7(), uuidv7()))];
            const sql = `COPY results.docking_results (${Object.keys(COLUMNS).join(', ')}) FROM STDIN (FORMAT binary)`;
            const start = performance.now();
            await pipeline(Readable.from(chunks), raw.query(from(sql)));
            return (ROWS / (performance.now() - start)) * 1000;
          },
        },
        (round) => bench.progress(`round ${round}`),
      );
      const notes = { rows_per_round: ROWS, poses_per_item: POSES_PER_ITEM, items_per_batch: ITEMS_PER_BATCH };
      return [{ name: 'ingest', unit: 'poses/s', target: { of: 'ratio', atLeast: 0.8 }, ...samples, notes }];
    } finally {
      await Promise.all([admin.end(), raw.end()]);
    }
  },
};

function connectionOf({ host, port, user, password, database }: Route): pg.ClientConfig {
  return { host, port, user, password, database };
}

/** A job of one execution that attempt 1 runs, with all its items pending, put there directly. */
async function runningJob(admin: pg.Client): Promise<{ jobId: string; executionId: string }> {
  const [jobId, executionId] = [uuidv7(), uuidv7()];
  await admin.query(`SELECT results.ensure_partitions(now()::date)`);
  await admin.query(
    `INSERT INTO results.jobs (job_id, pipeline_version_id, status, input_signature, requested, pending, started_at)
     VALUES ($1, $1, 'running', repeat('ab', 32), $2, $2, now())`,
    [jobId, ITEMS],
  );
  await admin.query(
    `INSERT INTO results.job_tasks (job_id, task_id, position, plan, bin_width, requested, pending)
     VALUES ($1, 'dock', 1, $3, 0.1, $2, $2)`,
    [jobId, ITEMS, JSON.stringify(PLAN)],
  );
  await admin.query(
    `INSERT INTO results.task_executions (task_execution_id, job_id, task_id, chunk_no, attempt, status, worker, started_at)
     VALUES ($2, $1, 'dock', 1, 1, 'running', 'bench', now())`,
    [jobId, executionId],
  );
  await admin.query(
    `INSERT INTO results.task_results (job_id, task_id, item_no, molecule_id, smiles, input_signature, task_execution_id)
     SELECT $1, 'dock', n, gen_random_uuid(), 'CCO', repeat('cd', 32), $2 FROM generate_series(1, ${ITEMS}) n`,
    [jobId, executionId],
  );
  return { jobId, executionId };
}

function* rowsOf(jobId: string, executionId: string): Generator<CopyValue[]> {
  for (let itemNo = 1; itemNo <= ITEMS; itemNo += 1) {
    const moleculeId = uuidv7();
    for (let rank = 1; rank <= POSES_PER_ITEM; rank += 1) {
      const score = scoreOf(itemNo, rank);
      yield [jobId, PLAN.taskId, itemNo, 1, rank, moleculeId, score, score - 0.5, rank / 3, rank / 2, executionId, 1];
    }
  }
}
