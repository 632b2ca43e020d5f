import type { Boss, Tx } from '@mad/postgres';
import type { RunnableTask } from '@mad/proto/catalog';
import { notFound } from '@mad/rpc';
import { isEnded, isNews, mayQueue, type JobProgress, type JobState, type KnownJob } from '../domain/job-progress.ts';
import { admitJobs } from './admit.ts';
import { dequeue, enqueue, type Leaving } from './enqueue.ts';
import { lockOrgQueue } from './org-queue.ts';

/** A job as it is while its row is locked. */
export interface LockedJob extends KnownJob {
  orgId: string;
  jobId: string;
  priority: number;
  admitted: boolean;
  materialized: boolean;
  /** Of the request that created it; empty when it had none. */
  traceparent: string;
}

/** What results tells of a job. */
export interface Told {
  progress: JobProgress;
  runnable: readonly RunnableTask[];
  /** Tasks that leave the queue for it. */
  leaving?: Leaving;
}

/** What came of it. */
export interface TakenOver {
  /** False when the progress was old or the job had ended. */
  applied: boolean;
  /** Whether workers may find something they would not have found before. */
  moved: boolean;
}

/** Locks an organization's queue and one of its jobs, in this order. Throws NOT_FOUND. */
export async function lockJob(tx: Tx, orgId: string, jobId: string): Promise<LockedJob> {
  await lockOrgQueue(tx, orgId);
  const [row] = await tx.query<{
    status: JobState;
    event_seq: string;
    priority: number;
    cancel_requested: boolean;
    admitted: boolean;
    materialized: boolean;
    traceparent: string;
  }>(
    `SELECT status, event_seq, priority, traceparent, cancel_requested_at IS NOT NULL AS cancel_requested,
       admitted_at IS NOT NULL AS admitted, materialized_at IS NOT NULL AS materialized
     FROM catalog.jobs_meta WHERE org_id = $1 AND job_id = $2 FOR NO KEY UPDATE`,
    [orgId, jobId],
  );
  if (!row) throw notFound('job', jobId);
  const { status: state, event_seq: eventSeq, cancel_requested: cancelRequested, ...rest } = row;
  return { orgId, jobId, state, eventSeq: BigInt(eventSeq), cancelRequested, ...rest };
}

/** Keeps how a job stands. */
async function writeProgress(tx: Tx, jobId: string, progress: JobProgress): Promise<void> {
  const { state, counters, eventSeq, detail, coreMs, savedCoreMs } = progress;
  await tx.execute(
    `UPDATE catalog.jobs_meta SET status = $2::catalog.job_status, detail = left($3, 4000), event_seq = $4, requested = $5,
       cached = $6, scored = $7, failed = $8, skipped = $9, cancelled = $10, pending = $11, core_ms = $13, saved_core_ms = $14,
       ended_at = CASE WHEN $12 THEN now() END, updated_at = now(), checked_at = now()
     WHERE job_id = $1`,
    [
      jobId,
      state,
      detail,
      eventSeq,
      counters.requested,
      counters.cached,
      counters.scored,
      counters.failed,
      counters.skipped,
      counters.cancelled,
      counters.pending,
      isEnded(state),
      coreMs,
      savedCoreMs,
    ],
  );
}

/**
 * Takes over what results told, in one transaction under the second login: tasks leave the queue, the job's record
 * follows if it is news, what may run is queued unless the job has ended or is being cancelled, and its place goes to
 * another when it ends. Told twice or too late it changes nothing. `job` is from `lockJob` in the same transaction.
 */
export async function takeOver(tx: Tx, boss: Boss, job: LockedJob, told: Told): Promise<TakenOver> {
  const { orgId, jobId } = job;
  const { progress, runnable, leaving } = told;
  let moved = leaving !== undefined && (await dequeue(tx, orgId, jobId, leaving));
  const applied = isNews(job, progress);
  if (applied) await writeProgress(tx, jobId, progress);
  else await tx.execute('UPDATE catalog.jobs_meta SET checked_at = now() WHERE job_id = $1', [jobId]);
  if (!job.materialized) {
    await tx.execute(
      'UPDATE catalog.jobs_meta SET materialized_at = now() WHERE job_id = $1 AND admitted_at IS NOT NULL',
      [jobId],
    );
  }
  const now = { state: applied ? progress.state : job.state, cancelRequested: job.cancelRequested };
  if (isEnded(now.state)) {
    moved = (await dequeue(tx, orgId, jobId, 'all')) || moved;
    if (applied) await admitJobs(tx, boss, orgId);
  }
  const queued = mayQueue(now) ? await enqueue(tx, job, runnable) : 0;
  return { applied, moved: moved || queued > 0 };
}

/** Ends a job that its tenant never held. `job` is from `lockJob` in the same transaction. */
export async function endJob(
  tx: Tx,
  boss: Boss,
  job: LockedJob,
  state: 'failed' | 'cancelled',
  detail: string,
): Promise<void> {
  if (isEnded(job.state)) return;
  await tx.execute(
    `UPDATE catalog.jobs_meta SET status = $2::catalog.job_status, detail = left($3, 4000), ended_at = now(),
       updated_at = now() WHERE job_id = $1`,
    [job.jobId, state, detail],
  );
  await dequeue(tx, job.orgId, job.jobId, 'all');
  await admitJobs(tx, boss, job.orgId);
}
