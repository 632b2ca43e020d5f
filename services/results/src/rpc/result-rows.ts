import { Code, type ConnectError } from '@connectrpc/connect';
import { notFound, rpcError } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import type { WorkStatus } from '../domain/work-item.ts';
import type { JobImage, JobTask } from '../runs/job-image.ts';
import { ITEM_COLUMNS, POSE_COLUMNS, type ItemRow, type PoseRow } from './convert.ts';
import { IS_HIT, keptBound } from './hit-rows.ts';
import type { ShownItem } from './invalidated.ts';

/** Which of a job's items to list: `taskId`, `status` and `errorClass` (empty for any) where set. */
export interface ItemQuery {
  taskId: string;
  status: WorkStatus | undefined;
  errorClass: string;
}

/** An item of a page with the place of its task among the job's. */
export interface ListedItem extends ShownItem {
  index: number;
  scoreUnits: string;
}

/** A job's items task by task, in input order: within a task, the primary key gives the order. */
export async function readItemsOfTasks(
  tx: TenantTx,
  job: JobImage,
  query: ItemQuery,
  after: { index: number; itemNo: number },
  limit: number,
): Promise<ListedItem[]> {
  const { job_id: jobId } = job.row;
  const found: ListedItem[] = [];
  for (const [index, task] of job.tasks.entries()) {
    if (index < after.index || found.length === limit) continue;
    if (query.taskId !== '' && query.taskId !== task.taskId) continue;
    const from = index === after.index ? after.itemNo : 0;
    const rows = await readItems(tx, jobId, task, query, from, limit - found.length);
    const { task: name, scoreUnits } = task.plan;
    found.push(...rows.map((row) => ({ row, index, jobId, task: name, scoreUnits })));
  }
  return found;
}

/** A task's items in input order; those of one kind of error from the index that holds only failed ones. */
async function readItems(
  tx: TenantTx,
  jobId: string,
  task: JobTask,
  { status, errorClass }: ItemQuery,
  after: number,
  limit: number,
): Promise<ItemRow[]> {
  const { taskId, keptTop } = task;
  const kept = keptTop === undefined ? '' : ` AND ${IS_HIT}${keptBound(task)}`;
  if (errorClass !== '') {
    return tx.query<ItemRow>(
      `SELECT ${ITEM_COLUMNS} FROM task_results
        WHERE job_id = $1 AND task_id = $2 AND status = 'failed' AND error_class = $3 AND item_no > $4${kept}
        ORDER BY item_no LIMIT $5`,
      [jobId, taskId, errorClass, after, limit],
    );
  }
  return tx.query<ItemRow>(
    `SELECT ${ITEM_COLUMNS} FROM task_results
      WHERE job_id = $1 AND task_id = $2 AND item_no > $3 AND ($4::work_status IS NULL OR status = $4)${kept}
      ORDER BY item_no LIMIT $5`,
    [jobId, taskId, after, status ?? null, limit],
  );
}

/** Whose poses an item shows: its own, or those of the item it was answered from. */
export interface PoseSource {
  jobId: string;
  taskId: string;
  itemNo: number;
}

/** The error for an item that is not there: it never was, or retention dropped it (RESULTS_DROPPED). */
export function missingItem({ row }: JobImage, itemNo: number): ConnectError {
  const { job_id: jobId, results_dropped_at: droppedAt } = row;
  if (droppedAt === null) return notFound('work item', `${jobId}/${itemNo}`);
  const message = `the job's results were dropped at ${droppedAt.toISOString()}; item ${itemNo} is none of those kept`;
  return rpcError(Code.NotFound, 'RESULTS_DROPPED', message, { job_id: jobId, drop_time: droppedAt.toISOString() });
}

/** NOT_FOUND when the task has no such item. */
export async function sourceOf(tx: TenantTx, job: JobImage, taskId: string, itemNo: number): Promise<PoseSource> {
  const [item] = await tx.query<{ job_id: string; task_id: string; item_no: number }>(
    `SELECT coalesce(reused_from_job_id, job_id) AS job_id, coalesce(reused_from_task_id, task_id) AS task_id,
        coalesce(reused_from_item_no, item_no) AS item_no
      FROM task_results WHERE job_id = $1 AND task_id = $2 AND item_no = $3`,
    [job.row.job_id, taskId, itemNo],
  );
  if (item === undefined) throw missingItem(job, itemNo);
  return { jobId: item.job_id, taskId: item.task_id, itemNo: item.item_no };
}

/** Where a page of poses ends. */
export type PoseCursor = [score: number, replicate: number, poseRank: number];

/** Poses of a finished item, best first. */
export async function readPoses(
  tx: TenantTx,
  source: PoseSource,
  after: PoseCursor | null,
  size: number,
): Promise<PoseRow[]> {
  return tx.query<PoseRow>(
    `SELECT ${POSE_COLUMNS}
      FROM docking_results d JOIN task_results t USING (job_id, task_id, item_no)
      WHERE d.job_id = $1 AND d.task_id = $2 AND d.item_no = $3 AND t.status = 'scored'
        AND ($4::float8 IS NULL OR (d.score, d.replicate, d.pose_rank) > ($4, $5::int, $6::int))
      ORDER BY d.score, d.replicate, d.pose_rank LIMIT $7`,
    [source.jobId, source.taskId, source.itemNo, after?.[0] ?? null, after?.[1] ?? null, after?.[2] ?? null, size],
  );
}

/** The best pose of each of a task's finished items that has any, by item; a cached item's is its source's. */
export async function readBestPoses(
  tx: TenantTx,
  jobId: string,
  taskId: string,
  itemNos: readonly number[],
): Promise<Map<number, PoseRow>> {
  const rows = await tx.query<PoseRow & { item_no: number }>(
    `SELECT t.item_no, ${POSE_COLUMNS}
      FROM task_results t CROSS JOIN LATERAL (
        SELECT ${POSE_COLUMNS} FROM docking_results d
        WHERE d.job_id = coalesce(t.reused_from_job_id, t.job_id) AND d.task_id = coalesce(t.reused_from_task_id, t.task_id)
          AND d.item_no = coalesce(t.reused_from_item_no, t.item_no)
        ORDER BY score, replicate, pose_rank LIMIT 1) d
      WHERE t.job_id = $1 AND t.task_id = $2 AND t.item_no = ANY ($3::int[]) AND t.status IN ('scored', 'cached')`,
    [jobId, taskId, itemNos],
  );
  return new Map(rows.map((row) => [row.item_no, row]));
}
