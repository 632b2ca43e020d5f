import type { TenantTx } from '@mad/tenancy';
import type { RetentionCounts } from '../db/entities/retention.ts';
import { idsOfMonth, type Limits } from '../domain/retention.ts';
import { monthOf } from './partitions.ts';
import { planned } from './planned.ts';
import { beginClearing } from './retention-drop.ts';
import { limitParams, MONTHS } from './retention-sql.ts';

/**
 * What a job has dropped waits so long, in days, for the other jobs of its month, that it goes with their partitions at once.
 * Under one rule for all they follow within a month; the rest is for jobs that ran on.
 */
const WAIT_DAYS = 45;
/** What a month keeps is copied in the statement that drops its partitions: items of this many slices at most. */
const KEPT_SLICES = 4;

/** A month with rows that show nowhere any more. */
export interface Month {
  month: string;
  /** When the time of all of its jobs will be over; null when it is. */
  overAt: string | null;
}

/** How months stand at a time; `dropped` says that a job whose time is over must have dropped its results, too. */
export async function monthsAt(
  tx: TenantTx,
  limits: Limits,
  months: readonly string[],
  { now, dropped }: { now: Date; dropped: boolean },
): Promise<Month[]> {
  if (months.length === 0) return [];
  const bounds = months.map(idsOfMonth);
  const rows = await planned<{ place: number; over_at: string | null }>(tx, MONTHS, [
    ...limitParams(limits),
    bounds.map(({ low }) => low),
    bounds.map(({ high }) => high),
    now.toISOString(),
    dropped,
  ]);
  return rows.map(({ place, over_at: overAt }) => ({ month: months[place - 1]!, overAt }));
}

/** Months of jobs that wait for them. */
export async function waitingMonths(tx: TenantTx): Promise<string[]> {
  const rows = await tx.query<{ job_id: string }>('SELECT job_id FROM jobs WHERE sweep_due ORDER BY job_id');
  return [...new Set(rows.map(({ job_id: id }) => monthOf(id)))];
}

/** Whether a month keeps too much to be made anew: it is cleared row by row instead. Of these jobs `kept` items stay. */
export async function keepsTooMuch(
  tx: TenantTx,
  month: string,
  { sliceRows, but = [], kept = 0 }: { sliceRows: number; but?: readonly string[]; kept?: number },
): Promise<boolean> {
  const { low, high } = idsOfMonth(month);
  const most = KEPT_SLICES * sliceRows;
  const [row] = await planned<{ items: number }>(
    tx,
    `SELECT count(*)::int AS items FROM (SELECT FROM task_results
      WHERE job_id >= $1 AND job_id < $2 AND job_id <> ALL ($3::uuid[]) AND status = 'scored' LIMIT $4) t`,
    [low, high, but, most + 1],
  );
  return kept + row!.items > most;
}

/**
 * Goes on with the months that wait: drops the partitions of one whose jobs are all over, or begins to clear a job row by row
 * whose month keeps too much, or will not be over in time. Answers what it dropped; undefined when nothing is to be done now.
 */
export async function clearMonths(
  tx: TenantTx,
  limits: Limits,
  { now, sliceRows }: { now: Date; sliceRows: number },
): Promise<Partial<RetentionCounts> | undefined> {
  const months = await monthsAt(tx, limits, await waitingMonths(tx), { now, dropped: true });
  for (const { month, overAt } of months) {
    if (overAt === null && !(await keepsTooMuch(tx, month, { sliceRows }))) {
      return { partitions: await sweep(tx, month) };
    }
    const late = await firstLate(tx, month, overAt);
    if (late === undefined) continue;
    await beginClearing(tx, late);
    return {};
  }
  return undefined;
}

/** The first job of a month that waits and need not, or need not longer. */
async function firstLate(tx: TenantTx, month: string, overAt: string | null): Promise<string | undefined> {
  const { low, high } = idsOfMonth(month);
  const [row] = await tx.query<{ job_id: string }>(
    `SELECT job_id FROM jobs WHERE sweep_due AND job_id >= $1 AND job_id < $2
        AND ($3::timestamptz IS NULL OR results_dropped_at + make_interval(days => ${WAIT_DAYS}) < $3::timestamptz)
      ORDER BY job_id LIMIT 1`,
    [low, high, overAt],
  );
  return row?.job_id;
}

async function sweep(tx: TenantTx, month: string): Promise<number> {
  const { low, high } = idsOfMonth(month);
  const [row] = await tx.query<{ swept: number }>('SELECT sweep_partitions($1::date) AS swept', [month]);
  await tx.execute('UPDATE jobs SET sweep_due = false WHERE sweep_due AND job_id >= $1 AND job_id < $2', [low, high]);
  return row!.swept;
}

/** Partitions there are of these months. */
export async function countPartitions(tx: TenantTx, months: readonly string[]): Promise<number> {
  const names = months.flatMap((month) => {
    const suffix = month.slice(0, 7).replace('-', '_');
    return [`docking_results_${suffix}`, `job_events_${suffix}`];
  });
  const [row] = await tx.query<{ partitions: number }>(
    `SELECT count(*)::int AS partitions FROM pg_class WHERE relname = ANY ($1::text[]) AND relnamespace = 'results'::regnamespace`,
    [names],
  );
  return row!.partitions;
}
