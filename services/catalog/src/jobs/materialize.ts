import type { CatalogContext } from '../context.ts';
import { progressOf } from '../rpc/job.ts';
import type { JobMessage } from './job-queues.ts';
import { endJob, lockJob, takeOver } from './take-over.ts';
import { isOver, isRefusal, materializeInTenant, noteWaiting, readRunnableJob } from './tenant-job.ts';

/**
 * Makes an admitted job in its tenant and queues what may run. Repeating it does nothing more. Throws when it must be
 * tried again; the user is then told what the job waits for.
 */
export async function materialize(
  context: CatalogContext,
  { org_id: orgId, job_id: jobId }: JobMessage,
  signal?: AbortSignal,
): Promise<void> {
  const { database, boss } = context;
  const job = await readRunnableJob(context, orgId, jobId);
  // A job that is being cancelled is made by its cancellation, which then ends it.
  if (!job || isOver(job) || job.cancel_requested_at || !job.admitted_at || job.materialized_at) return;
  try {
    const { progress, runnable } = await materializeInTenant(context, job, signal);
    const told = { progress: progressOf(progress!), runnable };
    const { moved } = await database.asSystem(async (tx) => takeOver(tx, boss, await lockJob(tx, orgId, jobId), told));
    if (moved) context.tasks.raise();
  } catch (error) {
    if (!isRefusal(error)) {
      await noteWaiting(context, job, error);
      throw error;
    }
    const detail = `could not be begun: ${(error as Error).message}`;
    await database.asSystem(async (tx) => endJob(tx, boss, await lockJob(tx, orgId, jobId), 'failed', detail));
    context.logger.error({ err: error, org_id: orgId, job_id: jobId }, 'results refused a job');
  }
}
