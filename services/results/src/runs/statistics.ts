import type { TenantTx } from '@mad/tenancy';
import type { Bin } from '../domain/score-units.ts';
import { planned } from './planned.ts';

/**
 * Adds items that have just ended to their tasks' histograms and counts of failures. `ended` selects task_id, status,
 * score and error_class of exactly those; whoever calls holds the job's lock.
 */
async function count(tx: TenantTx, jobId: string, ended: string, params: readonly unknown[]): Promise<void> {
  await planned(
    tx,
    `INSERT INTO score_histograms AS h (job_id, task_id, bin, items)
      SELECT k.job_id, k.task_id, score_bin(e.score, k.bin_width), count(*)
      FROM (${ended}) e JOIN job_tasks k ON k.job_id = $1 AND k.task_id = e.task_id
      WHERE e.status IN ('scored', 'cached') AND e.score IS NOT NULL AND k.bin_width IS NOT NULL GROUP BY 1, 2, 3
      ON CONFLICT (job_id, task_id, bin) DO UPDATE SET items = h.items + excluded.items`,
    [jobId, ...params],
  );
  await planned(
    tx,
    `INSERT INTO failure_counts AS f (job_id, task_id, error_class, items)
      SELECT $1, e.task_id, e.error_class, count(*) FROM (${ended}) e WHERE e.status = 'failed' GROUP BY 2, 3
      ON CONFLICT (job_id, task_id, error_class) DO UPDATE SET items = f.items + excluded.items`,
    [jobId, ...params],
  );
}

/** The items of one event: what ended with it of an execution, and what followed that. */
export interface EndedWith {
  jobId: string;
  taskId: string;
  executionId: string;
  /** The event's number. */
  endedSeq: number;
}

/**
 * The items that ended with an event, of the job $1: $2 … $4 are `endedParams`. Followers are told by the event, as nothing
 * else of their task ended with it: joined with the items they followed, Postgres may take each with each.
 */
export const endedWith = (columns: string): string => `
    SELECT ${columns} FROM task_results WHERE task_execution_id = $3 AND ended_seq = $4
    UNION ALL
    SELECT ${columns} FROM task_results
      WHERE job_id = $1 AND task_id = $2 AND follows_item_no IS NOT NULL AND ended_seq = $4`;

export const endedParams = ({ taskId, executionId, endedSeq }: EndedWith): unknown[] => [taskId, executionId, endedSeq];

/** After items of an execution ended: these, and those that followed one of them. */
export async function countEnded(tx: TenantTx, ended: EndedWith): Promise<void> {
  await count(tx, ended.jobId, endedWith('task_id, status, score, error_class'), endedParams(ended));
}

/** After a job was made: the items that were answered, or failed, at once. */
export async function countMaterialized(tx: TenantTx, jobId: string): Promise<void> {
  await count(tx, jobId, `SELECT task_id, status, score, error_class FROM task_results WHERE job_id = $1`, []);
}

/** A task's histogram: the bins that hold anything, by rising bin. */
export async function readHistogram(tx: TenantTx, jobId: string, taskId: string): Promise<Bin[]> {
  return tx.query<Bin>(`SELECT bin, items FROM score_histograms WHERE job_id = $1 AND task_id = $2 ORDER BY bin`, [
    jobId,
    taskId,
  ]);
}

/** How many items of a task failed alike, with the first of them. */
export interface FailureGroup {
  task_id: string;
  error_class: string;
  items: number;
  example_item_no: number;
  example_message: string;
}

/** All failures of a job by task and kind, most frequent first; without an example where retention dropped the items. */
export async function readFailures(tx: TenantTx, jobId: string): Promise<FailureGroup[]> {
  return tx.query<FailureGroup>(
    `SELECT f.task_id, f.error_class, f.items, coalesce(t.item_no, 0) AS example_item_no,
        coalesce(t.error_message, '') AS example_message
      FROM failure_counts f LEFT JOIN LATERAL (
        SELECT item_no, error_message FROM task_results t
        WHERE t.job_id = f.job_id AND t.task_id = f.task_id AND t.error_class = f.error_class AND t.status = 'failed'
        ORDER BY item_no LIMIT 1) t ON true
      WHERE f.job_id = $1 ORDER BY f.items DESC, f.error_class`,
    [jobId],
  );
}
