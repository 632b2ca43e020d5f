import { notFound } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import type { Fenced } from '../domain/execution.ts';
import { lockJob, type JobImage } from './job-image.ts';

/** A task execution, locked. */
export interface Execution extends Fenced {
  id: string;
  jobId: string;
  taskId: string;
  chunkNo: number;
  /** Batches of results taken from its attempt. */
  batches: number;
}

interface ExecutionRow extends Fenced {
  job_id: string;
  task_id: string;
  chunk_no: number;
  batches: number;
}

/** The execution, locked until the transaction ends. NOT_FOUND when the tenant does not know it. */
export async function lockExecution(tx: TenantTx, id: string): Promise<Execution> {
  const [row] = await tx.query<ExecutionRow>(
    `SELECT job_id, task_id, chunk_no, status, attempt, batches FROM task_executions WHERE task_execution_id = $1 FOR UPDATE`,
    [id],
  );
  if (row === undefined) throw notFound('task execution', id);
  const { job_id: jobId, task_id: taskId, chunk_no: chunkNo, status, attempt, batches } = row;
  return { id, jobId, taskId, chunkNo, status, attempt, batches };
}

/**
 * The execution and its job, both locked, the job first: every transaction that needs both takes them in this order.
 */
export async function lockExecutionAndJob(tx: TenantTx, id: string): Promise<{ job: JobImage; execution: Execution }> {
  const [row] = await tx.query<{ job_id: string }>(`SELECT job_id FROM task_executions WHERE task_execution_id = $1`, [
    id,
  ]);
  if (row === undefined) throw notFound('task execution', id);
  const job = await lockJob(tx, row.job_id);
  if (job === undefined) throw notFound('job', row.job_id);
  return { job, execution: await lockExecution(tx, id) };
}
