import { uuidv7 } from '@mad/process';
import { ITEMS, SCORE_UNITS } from './batches.ts';
import type { ChaosSystem } from './system.ts';

const PLAN = { taskId: 'dock', task: 'vina.dock', engine: 'vina@1.2.3', scoreUnits: SCORE_UNITS, lowerIsBetter: true };

/** A job of one execution that attempt 1 runs, with all its items pending, put into the tenant's database directly. */
export async function runningJob(
  system: ChaosSystem,
  orgId: string,
): Promise<{ jobId: string; taskExecutionId: string }> {
  const [jobId, taskExecutionId] = [uuidv7(), uuidv7()];
  const run = (sql: string, ...values: unknown[]) => system.inside(orgId, sql, ...values);
  await run('SELECT results.ensure_partitions(now()::date)');
  await run(
    `INSERT INTO results.jobs (job_id, pipeline_version_id, status, input_signature, requested, pending, started_at)
     VALUES ($1, $1, 'running', repeat('ab', 32), $2, $2, now())`,
    jobId,
    ITEMS,
  );
  await run(
    `INSERT INTO results.job_tasks (job_id, task_id, position, plan, bin_width, requested, pending)
     VALUES ($1, 'dock', 1, $3, 0.1, $2, $2)`,
    jobId,
    ITEMS,
    JSON.stringify(PLAN),
  );
  await run(
    `INSERT INTO results.task_executions (task_execution_id, job_id, task_id, chunk_no, attempt, status, worker, started_at)
     VALUES ($2, $1, 'dock', 1, 1, 'running', 'chaos', now())`,
    jobId,
    taskExecutionId,
  );
  await run(
    `INSERT INTO results.task_results (job_id, task_id, item_no, molecule_id, smiles, input_signature, task_execution_id)
     SELECT $1, 'dock', n, gen_random_uuid(), 'CCO', repeat('cd', 32), $2 FROM generate_series(1, ${ITEMS}) n`,
    jobId,
    taskExecutionId,
  );
  return { jobId, taskExecutionId };
}
