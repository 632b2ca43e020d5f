import type { Tx } from '@mad/postgres';
import { notFound } from '@mad/rpc';
import type { PipelineRow } from '../db/entities/pipeline.ts';

/** The columns of a pipeline, without `SELECT *`. */
export const PIPELINE_COLUMNS =
  'pipeline_id, org_id, name, description, latest_version, visibility, created_at, updated_at';

/** A pipeline of the organization, or a public one. Throws NOT_FOUND. */
export async function readPipeline(tx: Tx, orgId: string, pipelineId: string): Promise<PipelineRow> {
  const [row] = await tx.query<PipelineRow>(
    `SELECT ${PIPELINE_COLUMNS} FROM catalog.pipelines WHERE pipeline_id = $2 AND (org_id = $1 OR visibility = 'public')`,
    [orgId, pipelineId],
  );
  if (!row) throw notFound('pipeline', pipelineId);
  return row;
}
