import { Code } from '@connectrpc/connect';
import type { Boss, Tx } from '@mad/postgres';
import { SECOND_MS } from '@mad/process';
import { END_USER_HEADER, rpcError } from '@mad/rpc';
import type { CatalogContext } from '../context.ts';
import { isEnded } from '../domain/job-progress.ts';
import { progressOf } from '../rpc/job.ts';
import { dequeue } from './enqueue.ts';
import { CANCEL, type JobMessage } from './job-queues.ts';
import { endJob, lockJob, takeOver } from './take-over.ts';
import { isOver, isRefusal, materializeInTenant, readRunnableJob, RESULTS_MS } from './tenant-job.ts';

/** The caller tries at once; the message is for when it cannot. */
const AFTER_CALLER_MS = 3 * SECOND_MS;

/**
 * Notes that a job's end was asked for, and sends for it. What no worker holds leaves the queue at once. A job that never
 * got a place ends here: its tenant does not know it. Throws NOT_FOUND, and FAILED_PRECONDITION with JOB_ENDED.
 * Returns whether its tenant must be told.
 */
export async function requestCancel(
  tx: Tx,
  boss: Boss,
  { orgId, jobId, userId }: { orgId: string; jobId: string; userId: string },
): Promise<boolean> {
  const job = await lockJob(tx, orgId, jobId);
  if (isEnded(job.state)) {
    const metadata = { job_id: jobId, state: job.state };
    throw rpcError(Code.FailedPrecondition, 'JOB_ENDED', `job ${jobId} has ended: ${job.state}`, metadata);
  }
  if (job.cancelRequested) return true;
  await tx.execute(
    `UPDATE catalog.jobs_meta SET cancel_requested_at = now(), cancel_requested_by = $2, updated_at = now()
     WHERE job_id = $1`,
    [jobId, userId],
  );
  if (!job.admitted) {
    await endJob(tx, boss, job, 'cancelled', '');
    return false;
  }
  await dequeue(tx, orgId, jobId, 'not leased');
  await boss.send(tx, CANCEL, { org_id: orgId, job_id: jobId }, { key: jobId, delayMs: AFTER_CALLER_MS });
  return true;
}

/**
 * Ends a job in its tenant and takes over how it stands. A job that is not there yet is made first, so that a late
 * message cannot make it afterwards. Repeating it does nothing more; throws when it must be tried again.
 */
export async function cancel(
  context: CatalogContext,
  { org_id: orgId, job_id: jobId }: JobMessage,
  signal?: AbortSignal,
): Promise<void> {
  const { database, boss, executions } = context;
  const job = await readRunnableJob(context, orgId, jobId);
  if (!job || isOver(job) || !job.cancel_requested_at) return;
  try {
    if (!job.materialized_at) await materializeInTenant(context, job, signal);
    const headers: Record<string, string> = job.cancel_requested_by
      ? { [END_USER_HEADER]: job.cancel_requested_by }
      : {};
    const { progress } = await executions.cancelJobRun({ orgId, jobId }, { timeoutMs: RESULTS_MS, signal, headers });
    const told = { progress: progressOf(progress!), runnable: [] };
    await database.asSystem(async (tx) => takeOver(tx, boss, await lockJob(tx, orgId, jobId), told));
  } catch (error) {
    if (!isRefusal(error)) throw error;
    await database.asSystem(async (tx) => endJob(tx, boss, await lockJob(tx, orgId, jobId), 'cancelled', ''));
  }
}
