import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { invalidFields, notFound, rpcError } from '@mad/rpc';
import type { PipelineVersionRow } from '../db/entities/pipeline.ts';
import { checkSpec, pinVersions, type SchemaValidator } from '../domain/pipeline-spec.ts';
import type { FindDefinition } from '../domain/task-definition.ts';
import { PIPELINE_VERSION_COLUMNS } from '../pipeline-versions.ts';

/** Which version. */
export interface VersionKey {
  orgId: string;
  pipelineId: string;
  version: number;
}

/**
 * Publishes a draft: tasks get the versions that are the newest now. Throws FAILED_PRECONDITION with ALREADY_PUBLISHED,
 * NOT_FOUND, and INVALID_ARGUMENT for a draft that a task definition retired since has made wrong.
 */
export async function publishVersion(
  tx: Tx,
  { orgId, pipelineId, version }: VersionKey,
  find: FindDefinition,
  validator: SchemaValidator,
): Promise<PipelineVersionRow> {
  const [draft] = await tx.query<PipelineVersionRow>(
    `SELECT ${PIPELINE_VERSION_COLUMNS} FROM catalog.pipeline_versions v
     WHERE v.org_id = $1 AND v.pipeline_id = $2 AND v.version = $3 FOR NO KEY UPDATE`,
    [orgId, pipelineId, version],
  );
  if (!draft) throw notFound('pipeline version', `${pipelineId}/${version}`);
  if (draft.published) {
    const message = `version ${version} is published already`;
    throw rpcError(Code.FailedPrecondition, 'ALREADY_PUBLISHED', message, { version: String(version) });
  }
  const problems = checkSpec(draft.spec, find, validator);
  if (problems.length > 0) throw invalidFields(problems);
  const [row] = await tx.query<PipelineVersionRow>(
    `UPDATE catalog.pipeline_versions v SET published = true, published_at = now(), spec = $3::jsonb
     WHERE v.org_id = $1 AND v.pipeline_version_id = $2 RETURNING ${PIPELINE_VERSION_COLUMNS}`,
    [orgId, draft.pipeline_version_id, JSON.stringify(pinVersions(draft.spec, find))],
  );
  await tx.execute(
    `UPDATE catalog.pipelines SET latest_version = greatest(latest_version, $3), updated_at = now()
     WHERE org_id = $1 AND pipeline_id = $2`,
    [orgId, pipelineId, version],
  );
  return row!;
}
