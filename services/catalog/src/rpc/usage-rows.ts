import type { MessageInitShape } from '@bufbuild/protobuf';
import { UsageGrouping, type UsageSchema } from '@mad/proto/catalog';
import type { Tx } from '@mad/postgres';

/** What a group of jobs used; 64-bit counts arrive as text. */
export interface UsageRow {
  /** "2026-11", UTC; empty where jobs are not grouped by month. */
  month: string;
  /** Empty where jobs are not grouped by user. */
  user_id: string;
  jobs: string;
  completed: string;
  failed_jobs: string;
  molecules: string;
  scored: string;
  cached: string;
  failed: string;
  core_ms: string;
  saved_core_ms: string;
}

/** Where a page ends. */
export type UsageCursor = [month: string, userId: string];

/** What to count. Months as "2026-11"; an empty one is no bound. */
export interface UsageQuery {
  orgId: string;
  grouping: UsageGrouping;
  firstMonth: string;
  lastMonth: string;
  after: UsageCursor | undefined;
  limit: number;
}

const MONTH = `to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM')`;
const USER = 'created_by::text';

/** Groups of an organization's jobs by the month and the user that submitted them, newest month first. */
export async function readUsage(tx: Tx, query: UsageQuery): Promise<UsageRow[]> {
  const { orgId, grouping, firstMonth, lastMonth, after, limit } = query;
  const month = grouping === UsageGrouping.USER ? `''::text` : MONTH;
  const user = grouping === UsageGrouping.USER || grouping === UsageGrouping.MONTH_AND_USER ? USER : `''::text`;
  return tx.query<UsageRow>(
    `SELECT month, user_id, count(*) AS jobs, count(*) FILTER (WHERE status = 'completed') AS completed,
       count(*) FILTER (WHERE status = 'failed') AS failed_jobs, sum(input_count) AS molecules, sum(scored) AS scored,
       sum(cached) AS cached, sum(failed) AS failed, sum(core_ms) AS core_ms, sum(saved_core_ms) AS saved_core_ms
     FROM (
       SELECT ${month} AS month, ${user} AS user_id, status, input_count, scored, cached, failed, core_ms, saved_core_ms
       FROM catalog.jobs_meta WHERE org_id = $1
         AND created_at >= coalesce(to_date(nullif($2, ''), 'YYYY-MM')::timestamp AT TIME ZONE 'UTC', '-infinity')
         AND created_at < coalesce((to_date(nullif($3, ''), 'YYYY-MM') + interval '1 month') AT TIME ZONE 'UTC', 'infinity')) j
     WHERE $4::text IS NULL OR month < $4 OR (month = $4 AND user_id > $5)
     GROUP BY month, user_id ORDER BY month DESC, user_id LIMIT $6`,
    [orgId, firstMonth, lastMonth, after?.[0] ?? null, after?.[1] ?? null, limit],
  );
}

export function usageMessage(row: UsageRow): MessageInitShape<typeof UsageSchema> {
  return {
    month: row.month,
    userId: row.user_id,
    jobs: BigInt(row.jobs),
    completed: BigInt(row.completed),
    failed: BigInt(row.failed_jobs),
    molecules: BigInt(row.molecules),
    itemsComputed: BigInt(row.scored),
    itemsCached: BigInt(row.cached),
    itemsFailed: BigInt(row.failed),
    coreMs: BigInt(row.core_ms),
    savedCoreMs: BigInt(row.saved_core_ms),
  };
}
