import type { TenantTx } from '@mad/tenancy';
import type { ExportRow } from '../domain/export-row.ts';
import type { JobTask } from '../runs/job-image.ts';
import { ITEM_COLUMNS, itemBytes, type ItemRow, type PoseRow } from './convert.ts';
import { fillPage } from './fill-page.ts';
import { IS_HIT, orderOf, readHits, type HitCursor, type HitQuery } from './hit-rows.ts';
import { readBestPoses } from './result-rows.ts';

/** A hit as it is taken away, and its best pose. */
export interface ExportedHit {
  row: ExportRow;
  pose: PoseRow | undefined;
}

/** A page of hits with their best poses. */
export async function readExportPage(
  tx: TenantTx,
  jobId: string,
  task: JobTask,
  query: HitQuery,
): Promise<{ hits: ExportedHit[]; next: HitCursor | undefined }> {
  const { rows, next } = await readHits(tx, jobId, task, query);
  return { hits: await withPoses(tx, jobId, task, rows), next };
}

/** A page of the hits among some items, best first, with their best poses. */
export async function readExportItems(
  tx: TenantTx,
  jobId: string,
  task: JobTask,
  { itemNos, after, size }: { itemNos: readonly number[]; after: HitCursor | undefined; size: number },
): Promise<{ hits: ExportedHit[]; next: HitCursor | undefined }> {
  const { comparison, direction, start } = orderOf(task);
  const { rows, more } = await fillPage<ItemRow>({
    size,
    read: (known, limit) => {
      const last = known.at(-1);
      const place = last === undefined ? (after ?? start) : [last.score, last.item_no];
      return tx.query<ItemRow>(
        `SELECT ${ITEM_COLUMNS} FROM task_results
          WHERE job_id = $1 AND task_id = $2 AND item_no = ANY ($3::int[]) AND ${IS_HIT}
            AND (score, item_no) ${comparison} ($4::float8, $5::int)
          ORDER BY score ${direction}, item_no ${direction} LIMIT $6`,
        [jobId, task.taskId, itemNos, place[0], place[1], limit],
      );
    },
    bytesOf: itemBytes,
  });
  const last = rows.at(-1);
  const next: HitCursor | undefined = more ? [last!.score!, last!.item_no, 0] : undefined;
  return { hits: await withPoses(tx, jobId, task, rows), next };
}

async function withPoses(
  tx: TenantTx,
  jobId: string,
  { taskId, plan }: JobTask,
  rows: readonly (ItemRow & { rank?: number })[],
): Promise<ExportedHit[]> {
  // Only docking has poses.
  const poses =
    plan.scoreUnits === 'kcal/mol'
      ? await readBestPoses(
          tx,
          jobId,
          taskId,
          rows.map((row) => row.item_no),
        )
      : undefined;
  return rows.map((row) => {
    const pose = poses?.get(row.item_no);
    return { row: exportRow(row, plan.scoreUnits, pose), pose };
  });
}

/** A hit and a pose of it, flat. */
export function exportRow(row: ItemRow & { rank?: number }, scoreUnits: string, pose: PoseRow | undefined): ExportRow {
  return {
    // 0 where a bound of the score leaves out better hits.
    rank: row.rank === undefined || row.rank === 0 ? null : row.rank,
    item_no: row.item_no,
    molecule_id: row.molecule_id,
    molecule_name: row.molecule_name,
    smiles: row.smiles,
    score: row.score!,
    score_units: scoreUnits,
    confidence_score: row.confidence_score,
    source: row.status === 'cached' ? 'cached' : 'fresh',
    reused_from_job_id: row.reused_from_job_id,
    reused_from_item_no: row.reused_from_item_no,
    molecular_weight: row.molecular_weight,
    logp: row.logp,
    tpsa: row.tpsa,
    hbd: row.hbd,
    hba: row.hba,
    rotatable_bonds: row.rotatable_bonds,
    pose_replicate: pose?.replicate ?? null,
    pose_rank: pose?.pose_rank ?? null,
    pose_score: pose?.score ?? null,
    pose_raw_score: pose?.raw_score ?? null,
    input_signature: row.input_signature,
    result_data: row.result_data === null ? null : JSON.stringify(row.result_data),
  };
}
