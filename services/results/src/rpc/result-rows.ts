import { notFound } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import type { DockingResultRow } from '../db/entities/work.ts';
import type { JobTask } from '../runs/job-image.ts';
import { ITEM_COLUMNS, type ItemRow } from './convert.ts';

/** The best finished items, straight from the index that holds only those, in its order or against it. */
export async function readHits(
  tx: TenantTx,
  jobId: string,
  { taskId, plan }: JobTask,
  { after, size }: { after: readonly number[] | undefined; size: number },
): Promise<ItemRow[]> {
  const [comparison, direction, start] = plan.lowerIsBetter ? ['>', 'ASC', '-Infinity'] : ['<', 'DESC', 'Infinity'];
  return tx.query<ItemRow>(
    `SELECT ${ITEM_COLUMNS} FROM task_results
      WHERE job_id = $1 AND task_id = $2 AND status IN ('scored', 'cached') AND score IS NOT NULL
        AND (score, item_no) ${comparison} ($3::float8, $4::int)
      ORDER BY score ${direction}, item_no ${direction} LIMIT $5`,
    [jobId, taskId, after?.[0] ?? start, after?.[1] ?? 0, size],
  );
}

/** Whose poses an item shows: its own, or those of the item it was answered from. */
export interface PoseSource {
  jobId: string;
  taskId: string;
  itemNo: number;
}

/** NOT_FOUND when the task has no such item. */
export async function sourceOf(tx: TenantTx, jobId: string, taskId: string, itemNo: number): Promise<PoseSource> {
  const [item] = await tx.query<{ job_id: string; task_id: string; item_no: number }>(
    `SELECT coalesce(reused_from_job_id, job_id) AS job_id, coalesce(reused_from_task_id, task_id) AS task_id,
        coalesce(reused_from_item_no, item_no) AS item_no
      FROM task_results WHERE job_id = $1 AND task_id = $2 AND item_no = $3`,
    [jobId, taskId, itemNo],
  );
  if (item === undefined) throw notFound('work item', `${jobId}/${itemNo}`);
  return { jobId: item.job_id, taskId: item.task_id, itemNo: item.item_no };
}

/** Where a page of poses ends. */
export type PoseCursor = [score: number, replicate: number, poseRank: number];

/** What a pose shows. */
export type PoseRow = Pick<DockingResultRow, 'replicate' | 'pose_rank' | 'score' | 'raw_score' | 'rmsd_lb' | 'rmsd_ub'>;

/** Poses of a finished item, best first. */
export async function readPoses(
  tx: TenantTx,
  source: PoseSource,
  after: PoseCursor | null,
  size: number,
): Promise<PoseRow[]> {
  return tx.query<PoseRow>(
    `SELECT d.replicate, d.pose_rank, d.score, d.raw_score, d.rmsd_lb, d.rmsd_ub
      FROM docking_results d JOIN task_results t USING (job_id, task_id, item_no)
      WHERE d.job_id = $1 AND d.task_id = $2 AND d.item_no = $3 AND t.status = 'scored'
        AND ($4::float8 IS NULL OR (d.score, d.replicate, d.pose_rank) > ($4, $5::int, $6::int))
      ORDER BY d.score, d.replicate, d.pose_rank LIMIT $7`,
    [source.jobId, source.taskId, source.itemNo, after?.[0] ?? null, after?.[1] ?? null, after?.[2] ?? null, size],
  );
}
