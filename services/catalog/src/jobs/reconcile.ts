import { beginSpan, runSpan } from '@mad/process';
import type { CatalogContext } from '../context.ts';
import { progressOf } from '../rpc/job.ts';
import { CANCEL, MATERIALIZE } from './job-queues.ts';
import { lockJob, takeOver } from './take-over.ts';
import { RESULTS_MS } from './tenant-job.ts';

/** Jobs asked about in one round. */
const BATCH = 20;

interface SilentJob {
  org_id: string;
  job_id: string;
  materialized: boolean;
  cancel_requested: boolean;
  traceparent: string;
}

/**
 * Jobs of which nothing was heard for a while and which no worker has in hand, marked as asked about: each is given to
 * one process.
 */
async function takeSilentJobs({ database, queue }: CatalogContext): Promise<SilentJob[]> {
  return database.asSystem((tx) =>
    tx.query<SilentJob>(
      `UPDATE catalog.jobs_meta SET checked_at = now() WHERE job_id IN (
         SELECT j.job_id FROM catalog.jobs_meta j
         WHERE j.status IN ('pending', 'queued', 'running') AND j.admitted_at IS NOT NULL
           AND j.checked_at < now() - $1 * interval '1 ms'
           AND NOT EXISTS (SELECT FROM catalog.task_queue t WHERE t.job_id = j.job_id AND t.state = 'leased')
         ORDER BY j.checked_at LIMIT ${BATCH} FOR NO KEY UPDATE SKIP LOCKED)
       RETURNING org_id, job_id, materialized_at IS NOT NULL AS materialized,
         cancel_requested_at IS NOT NULL AS cancel_requested, traceparent`,
      [queue.reconcileAfterMs],
    ),
  );
}

async function reconcileJob(context: CatalogContext, job: SilentJob, signal?: AbortSignal): Promise<void> {
  const { database, boss, executions } = context;
  const { org_id: orgId, job_id: jobId } = job;
  const send = (queue: string) =>
    database.asSystem((tx) => boss.send(tx, queue, { org_id: orgId, job_id: jobId }, { key: jobId }));
  if (job.cancel_requested) return void (await send(CANCEL));
  if (!job.materialized) return void (await send(MATERIALIZE));
  // What is queued after this moment is not in the answer and stays.
  const [clock] = await database.asSystem((tx) => tx.query<{ now: Date }>('SELECT now()'));
  const found = await executions.reconcileJob({ orgId, jobId }, { timeoutMs: RESULTS_MS, signal });
  if (!found.materialized) {
    await database.asSystem((tx) =>
      tx.execute('UPDATE catalog.jobs_meta SET materialized_at = NULL WHERE job_id = $1', [jobId]),
    );
    return void (await send(MATERIALIZE));
  }
  const progress = progressOf(found.progress!);
  const { moved } = await database.asSystem(async (tx) => {
    const locked = await lockJob(tx, orgId, jobId);
    // An answer older than what is known may leave out what was queued since.
    const current = progress.eventSeq >= locked.eventSeq;
    const keep = found.runnable.map(({ taskExecutionId }) => taskExecutionId);
    const leaving = current ? { before: clock!.now, keep } : undefined;
    return takeOver(tx, boss, locked, { progress, runnable: current ? found.runnable : [], leaving });
  });
  if (moved) context.tasks.raise();
}

/** Asks results how silent jobs stand and brings the record and the queue to it. Returns how many were asked about. */
export async function reconcile(context: CatalogContext, signal?: AbortSignal): Promise<number> {
  const silent = await takeSilentJobs(context);
  for (const job of silent) {
    try {
      const span = beginSpan(context.tracer, job.traceparent, 'reconcile', 'internal', {
        attributes: { job_id: job.job_id },
      });
      await runSpan(span, () => reconcileJob(context, job, signal));
    } catch (error) {
      context.logger.warn({ err: error, org_id: job.org_id, job_id: job.job_id }, 'a job could not be reconciled');
    }
  }
  return silent.length;
}
