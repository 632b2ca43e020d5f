import { notFound } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import { EXECUTION_STATUSES, hasEnded } from '../domain/execution.ts';
import { isEnded } from '../domain/job-state.ts';
import { dropObjectsOfExecutions } from '../objects/object-notes.ts';
import { appendAudit } from './audit.ts';
import { dropPoses } from './endings.ts';
import { applyEndings, lockJob, type JobImage } from './job-image.ts';
import { closeJob, saveJob } from './save-job.ts';

const OPEN = EXECUTION_STATUSES.filter((status) => !hasEnded(status));

/** Cancels what has not ended; a worker that still runs loses its lease. An ended job stays as it is. */
export async function cancel(tx: TenantTx, jobId: string, userId: string): Promise<JobImage> {
  const job = await lockJob(tx, jobId);
  if (job === undefined) throw notFound('job', jobId);
  if (isEnded(job.row.status)) return job;
  // Executions first: who appends holds one, so nothing is staged behind our back.
  const stopped = await tx.query<{ id: string }>(
    `UPDATE task_executions SET status = 'cancelled', ended_at = now()
      WHERE job_id = $1 AND status = ANY ($2::execution_status[]) RETURNING task_execution_id AS id`,
    [jobId, OPEN],
  );
  await dropObjectsOfExecutions(
    tx,
    stopped.map(({ id }) => id),
  );
  const staged = await tx.query<{ task_id: string; item_no: number }>(
    `DELETE FROM staged_results s USING task_executions e
      WHERE e.job_id = $1 AND s.task_execution_id = e.task_execution_id RETURNING e.task_id, s.item_no`,
    [jobId],
  );
  for (const [taskId, items] of Map.groupBy(staged, (item) => item.task_id))
    await dropPoses(tx, { jobId, taskId }, items);
  const cancelled = await tx.query<{ task_id: string; items: number }>(
    `WITH ended AS (
        UPDATE task_results SET status = 'cancelled', ended_at = now()
        WHERE job_id = $1 AND status = 'pending' RETURNING task_id)
      SELECT task_id, count(*)::int AS items FROM ended GROUP BY task_id`,
    [jobId],
  );
  for (const { task_id: taskId, items } of cancelled) applyEndings(job, taskId, { cancelled: items });
  await appendAudit(tx, { userId, action: 'job.cancel', jobId, outcome: 'ok', metadata: {} });
  closeJob(job);
  await saveJob(tx, job);
  return job;
}
