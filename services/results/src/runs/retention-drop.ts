import type { TenantTx } from '@mad/tenancy';
import type { DropProgress } from '../db/entities/job.ts';
import type { RetentionCounts, RetentionRunRow } from '../db/entities/retention.ts';
import type { Limits } from '../domain/retention.ts';
import { appendAudit } from './audit.ts';
import { joined, planned } from './planned.ts';
import { NOTHING, sumOfCounts } from './retention-counts.ts';
import {
  CANDIDATES,
  CLEAR_POSES,
  COUNT_EVENTS,
  DROP_STRUCTURES,
  dropSlice,
  limitParams,
  POSES_SLICE,
  SLICE,
  TASKS,
  type Loss,
} from './retention-sql.ts';

/** A job that may have something to lose. */
export interface Candidate {
  job_id: string;
  event_seq: number;
  requested: number;
  /** How many of its best hits each task keeps. */
  keep: number;
  /** It has all of its results. */
  fresh: boolean;
}

/** Jobs that may have something to lose, the youngest first, below an id. */
export async function candidates(tx: TenantTx, limits: Limits, below: string, most: number): Promise<Candidate[]> {
  return planned<Candidate>(tx, CANDIDATES, [...limitParams(limits), below, most]);
}

/** A job that retention is at: it goes on with it before it begins with another one. */
export interface UnderWay {
  job_id: string;
  event_seq: number;
  results_top: number;
  sweep_due: boolean;
  drop_progress: DropProgress;
}

const UNDER_WAY = 'job_id, event_seq, results_top, sweep_due, drop_progress';

/** The job that retention is at, if it is at any. */
export async function jobUnderWay(tx: TenantTx): Promise<UnderWay | undefined> {
  const [row] = await tx.query<UnderWay>(
    `SELECT ${UNDER_WAY} FROM jobs WHERE drop_progress IS NOT NULL ORDER BY job_id LIMIT 1 FOR UPDATE`,
  );
  return row;
}

/**
 * Says that a job's results are dropped: from here on it shows the hits alone that it keeps, while the others go slice by slice.
 * Until the last one is looked at, all of its items may be needed.
 */
export async function beginDrop(tx: TenantTx, { job_id: id, requested, keep, fresh }: Candidate): Promise<UnderWay> {
  const [row] = await tx.query<UnderWay>(
    `UPDATE jobs SET results_dropped_at = coalesce(results_dropped_at, now()), results_top = $2, results_needed = $3, drop_progress = $4
      WHERE job_id = $1 RETURNING ${UNDER_WAY}`,
    [id, keep, Math.max(1, requested), JSON.stringify(begun(fresh ? 'events' : 'items', fresh))],
  );
  return row!;
}

/** Begins to delete a job's poses and events row by row: those of its month will not go together in time. */
export async function beginClearing(tx: TenantTx, jobId: string): Promise<void> {
  await tx.execute('UPDATE jobs SET drop_progress = $2 WHERE job_id = $1', [
    jobId,
    JSON.stringify(begun('poses', false)),
  ]);
}

const begun = (stage: DropProgress['stage'], fresh: boolean): DropProgress => ({
  stage,
  fresh,
  task: '',
  at: 0,
  items: 0,
  poses: 0,
  needed: 0,
});

/** What a step did with a job. */
export interface Done {
  counts: RetentionCounts;
  /** Rows it looked at. */
  rows: number;
}

/** Goes on with a job until it is over, or until so many rows were looked at; notes where it stands. */
export async function goOn(
  tx: TenantTx,
  { run, limits, job, most }: { run: RetentionRunRow; limits: Limits; job: UnderWay; most: number },
): Promise<Done> {
  let counts = NOTHING;
  let rows = 0;
  let progress: DropProgress | null = job.drop_progress;
  while (progress !== null && rows < most) {
    const slice: Slice = await STAGES[progress.stage](tx, { run, limits, job, progress, most: most - rows });
    counts = sumOfCounts(counts, slice.counts ?? {});
    rows += slice.rows;
    progress = slice.next;
  }
  await tx.execute('UPDATE jobs SET drop_progress = $2 WHERE job_id = $1', [
    job.job_id,
    progress === null ? null : JSON.stringify(progress),
  ]);
  return { counts, rows };
}

interface Slice {
  rows: number;
  counts?: Partial<RetentionCounts>;
  /** Where to go on; null when the job is over. */
  next: DropProgress | null;
}

interface Work {
  run: RetentionRunRow;
  limits: Limits;
  job: UnderWay;
  progress: DropProgress;
  most: number;
}

/** Does what is next, of so many rows. */
type Stage = (tx: TenantTx, work: Work) => Promise<Slice>;

const STAGES: Record<DropProgress['stage'], Stage> = {
  events: countEvents,
  items: dropItems,
  structures: dropStructures,
  poses: clearPoses,
  old_events: clearEvents,
};

/** They show no more, and go with the poses. */
async function countEvents(tx: TenantTx, { job, progress, most }: Work): Promise<Slice> {
  const last = progress.at + most;
  const counts = await eventsOf(tx, job.job_id, progress.at, last);
  const over = last >= job.event_seq;
  return {
    rows: counts.events,
    counts,
    next: over ? { ...progress, stage: 'items', at: 0 } : { ...progress, at: last },
  };
}

/** Counts a job's events behind a number up to another one. */
export async function eventsOf(
  tx: TenantTx,
  jobId: string,
  after: number,
  last: number,
): Promise<Pick<RetentionCounts, 'events' | 'bytes'>> {
  const [row] = await planned<{ events: number; bytes: number }>(tx, COUNT_EVENTS, [jobId, after, last]);
  return row!;
}

/** A task, and how many of its items a slice has. */
export interface ItemSlice {
  taskId: string;
  lower: boolean;
  /** Behind this item, up to that one. */
  after: number;
  last: number;
  rows: number;
}

/** The next items of a job, behind one of a task's; undefined when there are none. */
export async function nextItems(
  tx: TenantTx,
  jobId: string,
  { task, at, most }: { task: string; at: number; most: number },
): Promise<ItemSlice | undefined> {
  for (const { task_id: taskId, lower } of await tx.query<{ task_id: string; lower: boolean }>(TASKS, [jobId, task])) {
    const after = taskId === task ? at : 0;
    const [slice] = await planned<{ rows: number; last: number }>(tx, SLICE, [jobId, taskId, after, most]);
    if (slice!.rows > 0) return { taskId, lower, after, ...slice! };
  }
  return undefined;
}

/** $6 … $10 of what judges a slice of items. */
export const sliceParams = (limits: Limits, jobId: string, slice: ItemSlice, keep: number): unknown[] => [
  ...limitParams(limits),
  jobId,
  slice.taskId,
  slice.after,
  slice.last,
  keep,
];

async function dropItems(tx: TenantTx, { limits, job, progress, most }: Work): Promise<Slice> {
  const slice = await nextItems(tx, job.job_id, { ...progress, most });
  if (slice === undefined) return { rows: 0, next: { ...progress, stage: 'structures' } };
  const params = sliceParams(limits, job.job_id, slice, job.results_top);
  const [loss] = await joined<Loss>(tx, dropSlice(slice.lower), params);
  const { items, poses, needed, cache_entries: entries, bytes } = loss!;
  return {
    rows: slice.rows,
    counts: { items, poses, cache_entries: entries, bytes },
    next: {
      ...progress,
      task: slice.taskId,
      at: slice.last,
      items: progress.items + items,
      poses: progress.poses + poses,
      needed: progress.needed + needed,
    },
  };
}

/** And then the job has dropped what it loses: only rows that show nowhere are left to be cleared away. */
async function dropStructures(tx: TenantTx, { run, job, progress, most }: Work): Promise<Slice> {
  const dropped = await tx.execute(DROP_STRUCTURES, [job.job_id, most]);
  if (dropped >= most) return { rows: dropped, next: progress };
  const { fresh, items, poses, needed } = progress;
  const { job_id: jobId, results_top: keep } = job;
  await tx.execute('UPDATE jobs SET results_needed = $2, sweep_due = sweep_due OR $3 WHERE job_id = $1', [
    jobId,
    needed,
    fresh,
  ]);
  // Of one that was looked at again, few rows go: they do not wait for their month, unless more do.
  const next = !fresh && items > 0 && !job.sweep_due ? begun('poses', false) : null;
  if (!fresh && items === 0) return { rows: dropped, next };
  const metadata = { run_id: run.run_id, items, poses, kept_top_hits: keep, kept_because_needed: needed };
  await appendAudit(tx, { userId: run.started_by, action: 'retention.drop', jobId, outcome: 'ok', metadata });
  return { rows: dropped, counts: { jobs: 1 }, next };
}

async function clearPoses(tx: TenantTx, { job, progress, most }: Work): Promise<Slice> {
  const { task, at } = progress;
  const from = [job.job_id, task, at];
  const [end] = await planned<{ task_id: string; item_no: number }>(tx, POSES_SLICE, [...from, most]);
  await joined(tx, CLEAR_POSES, [...from, end !== undefined, end?.task_id ?? '', end?.item_no ?? 0]);
  if (end !== undefined) return { rows: most, next: { ...progress, task: end.task_id, at: end.item_no } };
  return { rows: 0, next: { ...progress, stage: 'old_events', at: 0 } };
}

async function clearEvents(tx: TenantTx, { job, progress, most }: Work): Promise<Slice> {
  const last = progress.at + most;
  const rows = await tx.execute('DELETE FROM job_events WHERE job_id = $1 AND seq_no > $2 AND seq_no <= $3', [
    job.job_id,
    progress.at,
    last,
  ]);
  if (last < job.event_seq) return { rows, next: { ...progress, at: last } };
  await tx.execute('UPDATE jobs SET sweep_due = false WHERE job_id = $1', [job.job_id]);
  return { rows, next: null };
}
