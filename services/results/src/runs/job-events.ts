import type { TenantTx } from '@mad/tenancy';
import type { JobEventRow, JobRow } from '../db/entities/job.ts';

/** A job's events after a number, in order. Whose results were dropped shows none, though rows may wait to be cleared away. */
export async function readEvents(
  tx: TenantTx,
  { job_id: jobId, results_dropped_at: droppedAt }: Pick<JobRow, 'job_id' | 'results_dropped_at'>,
  afterSeq: number,
  limit: number,
): Promise<JobEventRow[]> {
  if (droppedAt !== null) return [];
  return tx.query<JobEventRow>(
    `SELECT job_id, seq_no, ts, event, detail, metadata FROM job_events WHERE job_id = $1 AND seq_no > $2 ORDER BY seq_no LIMIT $3`,
    [jobId, afterSeq, limit],
  );
}
