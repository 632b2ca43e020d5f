import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { readThrough, type Cache } from '@mad/cache';
import type { Database, Tx } from '@mad/postgres';
import { MINUTE_MS, type Logger, type Metrics } from '@mad/process';
import { PipelineVersionSchema, type PipelineVersion } from '@mad/proto/catalog';
import type { PipelineVersionRow } from './db/entities/pipeline.ts';
import { pipelineVersionMessage } from './rpc/pipeline.ts';

/** A published version never changes; only a public pipeline may be made private again. */
const KEEP_MS = 5 * MINUTE_MS;

/** The columns of a pipeline version, without `SELECT *`. */
export const PIPELINE_VERSION_COLUMNS =
  'v.pipeline_version_id, v.org_id, v.pipeline_id, v.version, v.spec, v.published, v.published_at, v.created_at';

/** Published versions of pipelines that an organization may run: its own and public ones. */
export interface PipelineVersions {
  /** The published version, the newest one for version 0; undefined when there is none. */
  published(orgId: string, pipelineId: string, version: number): Promise<PipelineVersion | undefined>;
}

/** Reads a version that the organization may see, draft or published. */
export async function readVersion(
  tx: Tx,
  orgId: string,
  pipelineId: string,
  version: number,
): Promise<PipelineVersionRow | undefined> {
  const [row] = await tx.query<PipelineVersionRow>(
    `SELECT ${PIPELINE_VERSION_COLUMNS} FROM catalog.pipeline_versions v
     JOIN catalog.pipelines p ON p.pipeline_id = v.pipeline_id
     WHERE v.pipeline_id = $2 AND v.version = $3 AND (v.org_id = $1 OR (p.visibility = 'public' AND v.published))`,
    [orgId, pipelineId, version],
  );
  return row;
}

/** Reads published versions through the cache, each organization's under keys of its own. */
export function pipelineVersionsIn(
  database: Database,
  options: { cache: Cache; logger: Logger; metrics?: Metrics },
): PipelineVersions {
  const { cache, metrics, logger } = options;
  const known = readThrough<Uint8Array | undefined>(cache, {
    name: 'catalog_pipeline_version',
    ttlMs: KEEP_MS,
    load: async (key) => {
      const [orgId, pipelineId, version] = key.split('/') as [string, string, string];
      const read = (tx: Tx) => readVersion(tx, orgId, pipelineId, Number(version));
      const row = await database.inOrg(orgId, read, { readOnly: true });
      return row?.published ? toBinary(PipelineVersionSchema, pipelineVersionMessage(row)) : undefined;
    },
    metrics,
    logger,
  });
  const newest = (orgId: string, pipelineId: string): Promise<number> =>
    database.inOrg(
      orgId,
      async (tx) => {
        const [row] = await tx.query<{ latest_version: number }>(
          `SELECT latest_version FROM catalog.pipelines WHERE pipeline_id = $2 AND (org_id = $1 OR visibility = 'public')`,
          [orgId, pipelineId],
        );
        return row?.latest_version ?? 0;
      },
      { readOnly: true },
    );
  return {
    async published(orgId, pipelineId, version) {
      const wanted = version || (await newest(orgId, pipelineId));
      if (wanted === 0) return undefined;
      const bytes = await known.get(`${orgId}/${pipelineId}/${wanted}`);
      return bytes && fromBinary(PipelineVersionSchema, bytes);
    },
  };
}
