import type { TenantTx } from '@mad/tenancy';
import type { RetentionCounts } from '../db/entities/retention.ts';
import { limitsAt, type Limits, type RetentionRule } from '../domain/retention.ts';
import { monthOf } from './partitions.ts';
import { joined } from './planned.ts';
import { NOTHING, sumOfCounts } from './retention-counts.ts';
import { candidates, eventsOf, nextItems, sliceParams, type Candidate } from './retention-drop.ts';
import { countPartitions, keepsTooMuch, monthsAt, waitingMonths } from './retention-months.ts';
import { countSlice, type Loss } from './retention-sql.ts';
import { JOBS_PER_STEP, LAST } from './retention.ts';

/** How a preview is made: ages are counted back from `now`, so many rows are looked at by one statement. */
export interface PreviewOptions {
  now: Date;
  sliceRows: number;
  signal: AbortSignal;
}

/** Counts what rules would delete now, job by job and slice by slice as steps of a run would. Changes nothing. */
export async function previewRetention(
  tx: TenantTx,
  rules: readonly RetentionRule[],
  options: PreviewOptions,
): Promise<RetentionCounts> {
  const limits = limitsAt(rules, options.now);
  let total = NOTHING;
  const months = new Map<string, { but: string[]; kept: number }>();
  for (let below = LAST; ;) {
    const jobs = await candidates(tx, limits, below, JOBS_PER_STEP);
    if (jobs.length === 0) break;
    for (const job of jobs) {
      const { counts, kept } = await lossesOf(tx, limits, job, options);
      total = sumOfCounts(total, counts);
      if (!job.fresh) continue;
      const its = months.get(monthOf(job.job_id)) ?? { but: [], kept: 0 };
      months.set(monthOf(job.job_id), { but: [...its.but, job.job_id], kept: its.kept + kept });
    }
    below = jobs.at(-1)!.job_id;
  }
  const touched = [...new Set([...months.keys(), ...(await waitingMonths(tx))])];
  const standing = await monthsAt(tx, limits, touched, { now: options.now, dropped: false });
  const swept: string[] = [];
  for (const { month, overAt } of standing) {
    if (overAt !== null) continue;
    const { sliceRows } = options;
    if (!(await keepsTooMuch(tx, month, { sliceRows, ...months.get(month) }))) swept.push(month);
  }
  return sumOfCounts(total, { partitions: await countPartitions(tx, swept) });
}

/** What a job loses, and how many items it keeps that have poses of their own. */
async function lossesOf(
  tx: TenantTx,
  limits: Limits,
  { job_id: jobId, event_seq: events, keep, fresh }: Candidate,
  { sliceRows, signal }: PreviewOptions,
): Promise<{ counts: RetentionCounts; kept: number }> {
  let counts = NOTHING;
  for (let at = 0; fresh && at < events; at += sliceRows) {
    counts = sumOfCounts(counts, await eventsOf(tx, jobId, at, at + sliceRows));
  }
  let kept = 0;
  for (let place = { task: '', at: 0 }; ;) {
    signal.throwIfAborted();
    const slice = await nextItems(tx, jobId, { ...place, most: sliceRows });
    if (slice === undefined) break;
    const params = sliceParams(limits, jobId, slice, keep);
    const loss = await lossOf(tx, countSlice(slice.lower), params);
    const { items, poses, cache_entries: entries, bytes } = loss;
    counts = sumOfCounts(counts, { items, poses, cache_entries: entries, bytes });
    kept += loss.kept;
    place = { task: slice.taskId, at: slice.last };
  }
  return { counts: sumOfCounts(counts, { jobs: fresh || counts.items > 0 ? 1 : 0 }), kept };
}

/** How rows are joined is said for a transaction, and a read is none; one for all slices would hold back the vacuum for minutes. */
async function lossOf(tx: TenantTx, sql: string, params: readonly unknown[]): Promise<Loss> {
  await tx.client.query('BEGIN READ ONLY');
  try {
    const [loss] = await joined<Loss>(tx, sql, params);
    return loss!;
  } finally {
    await tx.client.query('ROLLBACK');
  }
}
