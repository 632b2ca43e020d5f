import type { TenantTx } from '@mad/tenancy';
import type { JobEventRow } from '../db/entities/job.ts';

/** A job's events after a number, in order. */
export async function readEvents(tx: TenantTx, jobId: string, afterSeq: number, limit: number): Promise<JobEventRow[]> {
  return tx.query<JobEventRow>(
    `SELECT job_id, seq_no, ts, event, detail, metadata FROM job_events WHERE job_id = $1 AND seq_no > $2 ORDER BY seq_no LIMIT $3`,
    [jobId, afterSeq, limit],
  );
}
