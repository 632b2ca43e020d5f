import type { ExportEntityRow, ExportPartRow } from '../db/entities/export.ts';
import { partFile } from '../domain/export-format.ts';
import { EXPORT_COLUMNS } from '../domain/export-row.ts';
import type { JobImage, JobTask } from '../runs/job-image.ts';

/** Of the manifest's own form. */
const MANIFEST_VERSION = 1;

/**
 * What an export is: enough to know years later which hits these are and how they were computed, and to see whether every
 * file is still what was written.
 */
export function manifestOf(
  orgId: string,
  row: ExportEntityRow,
  job: JobImage,
  { taskId, plan }: JobTask,
  parts: readonly ExportPartRow[],
): object {
  return {
    manifest_version: MANIFEST_VERSION,
    export_id: row.export_id,
    org_id: orgId,
    format: row.format,
    hits: {
      job_id: row.job_id,
      task_id: taskId,
      filter: row.filter,
      best_per_molecule: row.best_per_molecule,
      order: plan.lowerIsBetter ? 'score, ascending' : 'score, descending',
      score_units: plan.scoreUnits,
    },
    snapshot: { event_seq: row.snapshot_seq, time: row.created_at.toISOString() },
    computed_by: {
      pipeline_version_id: job.row.pipeline_version_id,
      job_input_signature: job.row.input_signature,
      task: plan.task,
      engine: plan.engine,
      recipe: plan.recipe,
      cache_version: plan.cacheVersion,
      rdkit_version: plan.rdkitVersion,
    },
    columns: EXPORT_COLUMNS.map(({ name, type, nullable }) => ({ name, type, nullable })),
    rows: parts.reduce((sum, part) => sum + part.rows, 0),
    size_bytes: parts.reduce((sum, part) => sum + part.size_bytes, 0),
    parts: parts.map((part) => ({
      file: partFile(part.part_no, row.format),
      rows: part.rows,
      size_bytes: part.size_bytes,
      sha256: part.sha256,
    })),
  };
}
