import { create } from '@bufbuild/protobuf';
import { OrganizationSummarySchema, UsageSchema, type OrganizationSummary, type Usage } from '@mad/proto/catalog';
import type { OrganizationUse } from '@mad/proto/identity';
import type { Tx } from '@mad/postgres';

/** What catalog counts of an organization; 64-bit counts arrive as text. */
export interface CatalogUse {
  org_id: string;
  total: string;
  pending: string;
  queued: string;
  running: string;
  completed: string;
  failed: string;
  cancelled: string;
  /** Jobs that hold one of the organization's places. */
  admitted: string;
  /** Task executions queued or planned, as the quota counts them. */
  tasks: string;
  running_tasks: string;
  molecules: string;
  artifact_bytes: string;
  inputs: string;
  scored: string;
  cached: string;
  failed_items: string;
  core_ms: string;
  saved_core_ms: string;
}

const countOf = (state: string): string => `count(*) FILTER (WHERE status = '${state}') AS ${state}`;

const USE_SQL = `
  SELECT o.org_id, coalesce(j.total, 0) AS total, coalesce(j.pending, 0) AS pending, coalesce(j.queued, 0) AS queued,
    coalesce(j.running, 0) AS running, coalesce(j.completed, 0) AS completed, coalesce(j.failed, 0) AS failed,
    coalesce(j.cancelled, 0) AS cancelled, coalesce(j.admitted, 0) AS admitted,
    coalesce(j.planned, 0) + coalesce(q.queued, 0) AS tasks, coalesce(q.running, 0) AS running_tasks,
    coalesce(u.molecules, 0) AS molecules, coalesce(u.artifact_bytes, 0) AS artifact_bytes,
    coalesce(j.inputs, 0) AS inputs, coalesce(j.scored, 0) AS scored, coalesce(j.cached, 0) AS cached,
    coalesce(j.failed_items, 0) AS failed_items, coalesce(j.core_ms, 0) AS core_ms, coalesce(j.saved_core_ms, 0) AS saved_core_ms
  FROM unnest($1::uuid[]) AS o (org_id)
  LEFT JOIN (
    SELECT org_id, count(*) AS total, ${['pending', 'queued', 'running', 'completed', 'failed', 'cancelled'].map(countOf).join(', ')},
      count(*) FILTER (WHERE status IN ('pending', 'queued', 'running') AND admitted_at IS NOT NULL) AS admitted,
      sum(planned_tasks) FILTER (WHERE status IN ('pending', 'queued', 'running') AND materialized_at IS NULL) AS planned,
      sum(input_count) AS inputs, sum(scored) AS scored, sum(cached) AS cached, sum(failed) AS failed_items,
      sum(core_ms) AS core_ms, sum(saved_core_ms) AS saved_core_ms
    FROM catalog.jobs_meta WHERE org_id = ANY ($1::uuid[]) GROUP BY org_id) j ON j.org_id = o.org_id
  LEFT JOIN catalog.org_queue q ON q.org_id = o.org_id
  LEFT JOIN catalog.org_usage u ON u.org_id = o.org_id`;

/** Jobs by state and what is used of catalog's quotas, for each of these organizations that the transaction may see. */
export async function readUse(tx: Tx, orgIds: readonly string[]): Promise<Map<string, CatalogUse>> {
  const rows = await tx.query<CatalogUse>(USE_SQL, [orgIds]);
  return new Map(rows.map((row) => [row.org_id, row]));
}

/** What all of an organization's jobs used. */
export function totalUsage(use: CatalogUse): Usage {
  return create(UsageSchema, {
    jobs: BigInt(use.total),
    completed: BigInt(use.completed),
    failed: BigInt(use.failed),
    molecules: BigInt(use.inputs),
    itemsComputed: BigInt(use.scored),
    itemsCached: BigInt(use.cached),
    itemsFailed: BigInt(use.failed_items),
    coreMs: BigInt(use.core_ms),
    savedCoreMs: BigInt(use.saved_core_ms),
  });
}

/** An organization at a glance, from what identity and catalog counted; its databases are added by who asks for them. */
export function summaryMessage(
  { organization, members, tokens }: OrganizationUse,
  use: CatalogUse,
): OrganizationSummary {
  const { orgId, slug, name, status, quotas, createTime } = organization!;
  const quota = (quotaName: string, limit: number | bigint | undefined, used: string | bigint) => {
    return { quota: quotaName, limit: BigInt(limit ?? 0), used: BigInt(used) };
  };
  return create(OrganizationSummarySchema, {
    orgId,
    slug,
    name,
    status,
    jobs: {
      total: BigInt(use.total),
      pending: BigInt(use.pending),
      queued: BigInt(use.queued),
      running: BigInt(use.running),
      completed: BigInt(use.completed),
      failed: BigInt(use.failed),
      cancelled: BigInt(use.cancelled),
    },
    molecules: BigInt(use.molecules),
    storageBytes: BigInt(use.artifact_bytes),
    members,
    tokens,
    quotas: [
      quota('max_concurrent_jobs', quotas?.maxConcurrentJobs, use.admitted),
      quota('max_queued_tasks', quotas?.maxQueuedTasks, use.tasks),
      quota('max_running_tasks', quotas?.maxRunningTasks, use.running_tasks),
      quota('max_molecules', quotas?.maxMolecules, use.molecules),
      quota('max_storage_bytes', quotas?.maxStorageBytes, use.artifact_bytes),
      quota('max_members', quotas?.maxMembers, members),
      quota('max_tokens', quotas?.maxTokens, tokens),
    ],
    createTime,
  });
}
