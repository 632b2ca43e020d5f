import { Code, ConnectError } from '@connectrpc/connect';
import type { CatalogContext } from '../context.ts';
import { progressOf } from '../rpc/job.ts';
import { dequeue } from './enqueue.ts';
import type { ExecutionMessage } from './job-queues.ts';
import { lockJob, takeOver } from './take-over.ts';
import { RESULTS_MS } from './tenant-job.ts';

const ERROR_CLASS = 'WORKER_LOST';

interface FailingRow {
  job_id: string;
  attempt: number;
  losses: number;
}

/**
 * Fails a task execution that took its workers down with it: results fences every lease it had, the items fail, and the
 * rest of the job goes on. Repeating it does nothing more; throws when it must be tried again.
 */
export async function failExecution(
  context: CatalogContext,
  { org_id: orgId, task_execution_id: taskExecutionId }: ExecutionMessage,
  signal?: AbortSignal,
): Promise<void> {
  const { database, boss, executions } = context;
  const [failing] = await database.inOrg(
    orgId,
    (tx) =>
      tx.query<FailingRow>(
        `SELECT job_id, attempt, losses FROM catalog.task_queue
         WHERE org_id = $1 AND task_execution_id = $2 AND state = 'failing'`,
        [orgId, taskExecutionId],
      ),
    { readOnly: true },
  );
  if (!failing) return;
  const { job_id: jobId, attempt, losses } = failing;
  const errorMessage = `${losses} workers were lost while they ran it`;
  const request = { orgId, taskExecutionId, attempt: attempt + 1, errorClass: ERROR_CLASS, errorMessage };
  try {
    const { progress, runnable } = await executions.failExecution(request, { timeoutMs: RESULTS_MS, signal });
    const told = { progress: progressOf(progress!), runnable, leaving: { taskExecutionId } };
    const { moved } = await database.asSystem(async (tx) => takeOver(tx, boss, await lockJob(tx, orgId, jobId), told));
    if (moved) context.tasks.raise();
  } catch (error) {
    if (!(error instanceof ConnectError) || error.code !== Code.NotFound) throw error;
    // The tenant holds no such execution: the job's reconciliation says what it does hold.
    await database.asSystem(async (tx) => {
      await lockJob(tx, orgId, jobId);
      await dequeue(tx, orgId, jobId, { taskExecutionId });
    });
  }
}
