import type { TenantTx } from '@mad/tenancy';
import { isEnded, jobError, jobStateOf } from '../domain/job-state.ts';
import { appendAudit } from './audit.ts';
import { countersOf, type JobImage } from './job-image.ts';

/** Ends the job when its last item has ended. */
export function closeJob(job: JobImage): void {
  const counters = countersOf(job);
  const next = jobStateOf(job.row.status, counters);
  if (next === job.row.status) return;
  job.row.status = next;
  job.row.error = jobError(next, counters);
  const { cached, scored, failed, skipped, cancelled } = counters;
  job.events.push({
    event: `job.${next}`,
    detail: job.row.error,
    metadata: { cached, scored, failed, skipped, cancelled },
  });
}

/**
 * Writes the job as it has become: counters of its tasks and its own, its state, its events with the next numbers.
 * Last of a transaction that holds the job's lock, so the numbers have no gaps and rise in commit order.
 */
export async function saveJob(tx: TenantTx, job: JobImage): Promise<void> {
  const { row, events } = job;
  const ended = isEnded(row.status);
  const first = row.event_seq + 1;
  row.event_seq += events.length;
  await saveTasks(tx, job);
  const { requested, cached, scored, failed, skipped, cancelled, pending } = countersOf(job);
  await tx.execute(
    `UPDATE jobs SET status = $2, error = $3, event_seq = $4, requested = $5, cached = $6, scored = $7, failed = $8,
        skipped = $9, cancelled = $10, pending = $11, core_ms = $14, saved_core_ms = $15,
        started_at = CASE WHEN $12 THEN coalesce(started_at, now()) ELSE started_at END,
        ended_at = CASE WHEN $13 THEN coalesce(ended_at, now()) END,
        timings = CASE WHEN $13 AND ended_at IS NULL THEN jsonb_build_object(
          'waited_ms', round(1000 * extract(epoch FROM coalesce(started_at, now()) - created_at)),
          'ran_ms', round(1000 * extract(epoch FROM now() - coalesce(started_at, now())))) ELSE timings END
      WHERE job_id = $1`,
    [
      row.job_id,
      row.status,
      row.error,
      row.event_seq,
      requested,
      cached,
      scored,
      failed,
      skipped,
      cancelled,
      pending,
      row.status === 'running',
      ended,
      row.core_ms,
      row.saved_core_ms,
    ],
  );
  if (events.length > 0) {
    await tx.execute(
      `INSERT INTO job_events (job_id, seq_no, event, detail, metadata)
        SELECT $1, $2::bigint + place - 1, event, detail, metadata
        FROM unnest($3::text[], $4::text[], $5::jsonb[]) WITH ORDINALITY AS new (event, detail, metadata, place)`,
      [
        row.job_id,
        first,
        events.map(({ event }) => event),
        events.map(({ detail }) => detail),
        events.map(({ metadata }) => JSON.stringify(metadata ?? {})),
      ],
    );
  }
  job.events = [];
  if (ended && events.some(({ event }) => event === `job.${row.status}`)) {
    await appendAudit(tx, { userId: '', action: 'job.end', jobId: row.job_id, outcome: row.status, metadata: {} });
  }
}

async function saveTasks(tx: TenantTx, { row, tasks }: JobImage): Promise<void> {
  const column = (key: keyof (typeof tasks)[number]['counters']): number[] =>
    tasks.map(({ counters }) => counters[key]);
  await tx.execute(
    `UPDATE job_tasks k SET requested = n.requested, cached = n.cached, scored = n.scored, failed = n.failed,
        skipped = n.skipped, cancelled = n.cancelled, pending = n.pending
      FROM unnest($2::text[], $3::int[], $4::int[], $5::int[], $6::int[], $7::int[], $8::int[], $9::int[])
        AS n (task_id, requested, cached, scored, failed, skipped, cancelled, pending)
      WHERE k.job_id = $1 AND k.task_id = n.task_id`,
    [
      row.job_id,
      tasks.map(({ taskId }) => taskId),
      column('requested'),
      column('cached'),
      column('scored'),
      column('failed'),
      column('skipped'),
      column('cancelled'),
      column('pending'),
    ],
  );
}
