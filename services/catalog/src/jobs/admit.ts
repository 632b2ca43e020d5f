import type { Boss, Tx } from '@mad/postgres';
import { freePlaces } from '../domain/job-quota.ts';
import { MATERIALIZE } from './job-queues.ts';

/**
 * Gives the organization's free places to the jobs that wait longest, those of higher priority first, and sends for
 * them to be begun. The caller holds the organization's lock. Returns the ids of the admitted jobs.
 */
export async function admitJobs(
  tx: Tx,
  boss: Boss,
  orgId: string,
  options: { delayMs?: number } = {},
): Promise<string[]> {
  const [standing] = await tx.query<{ max_concurrent_jobs: number; active: number }>(
    `SELECT max_concurrent_jobs, (SELECT count(*)::int FROM catalog.jobs_meta
       WHERE org_id = $1 AND status IN ('pending', 'queued', 'running') AND admitted_at IS NOT NULL) AS active
     FROM catalog.org_queue WHERE org_id = $1`,
    [orgId],
  );
  const places = standing ? freePlaces(standing.max_concurrent_jobs, standing.active) : 0;
  if (places === 0) return [];
  const admitted = await tx.query<{ job_id: string; traceparent: string }>(
    `UPDATE catalog.jobs_meta SET admitted_at = now(), updated_at = now(), checked_at = now(), detail = ''
     WHERE job_id IN (
       SELECT job_id FROM catalog.jobs_meta WHERE org_id = $1 AND status = 'pending' AND admitted_at IS NULL
       ORDER BY priority DESC, job_id LIMIT $2)
     RETURNING job_id, traceparent`,
    [orgId, places],
  );
  for (const { job_id, traceparent } of admitted)
    await boss.send(tx, MATERIALIZE, { org_id: orgId, job_id }, { key: job_id, traceparent, ...options });
  return admitted.map(({ job_id }) => job_id);
}
