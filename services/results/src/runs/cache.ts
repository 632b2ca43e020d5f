import type { JsonObject } from '@bufbuild/protobuf';
import type { TenantTx } from '@mad/tenancy';
import {
  cacheKey,
  isUsable,
  replaces,
  writesCache,
  type CacheEntry,
  type CacheEntryStatus,
} from '../domain/cache-entry.ts';
import type { JobImage, JobTask } from './job-image.ts';

/** An earlier result that answers an input. */
export interface CacheHit {
  jobId: string;
  taskId: string;
  itemNo: number;
  score: number | null;
  resultData: JsonObject | null;
  confidence: number | null;
  serviceName: string;
}

interface EntryRow {
  cache_key: string;
  status: CacheEntryStatus;
  confidence_score: number | null;
  expires_at: Date | null;
}

interface HitRow extends EntryRow {
  canonical_job_id: string;
  canonical_task_id: string;
  canonical_item_no: number;
  score: number | null;
  result_data: JsonObject | null;
  service_name: string;
}

function entryOf({ status, confidence_score: confidence, expires_at: expiresAt }: EntryRow): CacheEntry {
  return { status, confidence, expiresAt: expiresAt?.getTime() ?? null };
}

/** Usable earlier results by signature, of one task. One statement for all. */
export async function lookUp(
  tx: TenantTx,
  task: string,
  signatures: readonly string[],
  minConfidence: number,
): Promise<Map<string, CacheHit>> {
  const keys = [...new Set(signatures)].sort().map((signature) => cacheKey(task, signature));
  const rows = await tx.query<HitRow>(
    `SELECT c.cache_key, c.status, c.confidence_score, c.expires_at, c.canonical_job_id, c.canonical_task_id,
        c.canonical_item_no, t.score, t.result_data, t.service_name
      FROM result_cache c JOIN task_results t
        ON t.job_id = c.canonical_job_id AND t.task_id = c.canonical_task_id AND t.item_no = c.canonical_item_no
      WHERE c.cache_key = ANY ($1::text[]) AND t.status = 'scored'`,
    [keys],
  );
  const now = Date.now();
  const hits = new Map<string, CacheHit>();
  for (const row of rows) {
    if (!isUsable(entryOf(row), minConfidence, now)) continue;
    hits.set(row.cache_key.slice(task.length + 1), {
      jobId: row.canonical_job_id,
      taskId: row.canonical_task_id,
      itemNo: row.canonical_item_no,
      score: row.score,
      resultData: row.result_data,
      confidence: row.confidence_score,
      serviceName: row.service_name,
    });
  }
  return hits;
}

/** Counts the hits of a job that was just made. Rows are locked in the order of their keys. */
export async function countHits(tx: TenantTx, jobId: string): Promise<void> {
  await tx.execute(
    `WITH used AS (
        SELECT (k.plan ->> 'task') || ':' || t.input_signature AS cache_key, count(*) AS hits
        FROM task_results t JOIN job_tasks k USING (job_id, task_id)
        WHERE t.job_id = $1 AND t.status = 'cached' GROUP BY 1),
      locked AS (
        SELECT c.cache_key, used.hits FROM result_cache c JOIN used USING (cache_key)
        ORDER BY c.cache_key FOR UPDATE OF c)
      UPDATE result_cache c SET hit_count = c.hit_count + locked.hits, last_used_at = now()
      FROM locked WHERE c.cache_key = locked.cache_key`,
    [jobId],
  );
}

/** A work item that was just scored. */
export interface ScoredItem {
  item_no: number;
  input_signature: string;
  confidence_score: number | null;
  score: number | null;
}

/**
 * Leaves scored items to later jobs, where the job's policy wants it and nothing better is kept. Entries are locked, then
 * written, in the order of their keys: two jobs that finish the same inputs never wait for each other in a circle.
 */
export async function keepResults(
  tx: TenantTx,
  job: JobImage,
  { taskId, plan }: JobTask,
  items: readonly ScoredItem[],
): Promise<void> {
  const policy = job.row.cache_policy;
  if (!writesCache(policy) || items.length === 0) return;
  const byKey = new Map(items.map((item) => [cacheKey(plan.task, item.input_signature), item]));
  const rows = await tx.query<EntryRow>(
    `SELECT cache_key, status, confidence_score, expires_at FROM result_cache
      WHERE cache_key = ANY ($1::text[]) ORDER BY cache_key FOR UPDATE`,
    [[...byKey.keys()]],
  );
  const kept = new Map(rows.map((row) => [row.cache_key, entryOf(row)]));
  const now = Date.now();
  const chosen = [...byKey]
    .filter(([key, item]) => replaces(kept.get(key), item.confidence_score, policy, now))
    .sort(([a], [b]) => (a < b ? -1 : 1));
  if (chosen.length === 0) return;
  await tx.execute(
    `INSERT INTO result_cache AS c (cache_key, task, input_signature, canonical_job_id, canonical_task_id,
        canonical_item_no, confidence_score, metrics_summary)
      SELECT cache_key, $1, input_signature, $2, $3, item_no, confidence, summary
      FROM unnest($4::text[], $5::text[], $6::int[], $7::float8[], $8::jsonb[])
        AS n (cache_key, input_signature, item_no, confidence, summary)
      ON CONFLICT (cache_key) DO UPDATE SET canonical_job_id = excluded.canonical_job_id,
        canonical_task_id = excluded.canonical_task_id, canonical_item_no = excluded.canonical_item_no,
        confidence_score = excluded.confidence_score, metrics_summary = excluded.metrics_summary, status = 'valid',
        created_at = now(), expires_at = NULL
      WHERE c.status <> 'pinned'`,
    [
      plan.task,
      job.row.job_id,
      taskId,
      chosen.map(([key]) => key),
      chosen.map(([, item]) => item.input_signature),
      chosen.map(([, item]) => item.item_no),
      chosen.map(([, item]) => item.confidence_score),
      chosen.map(([, item]) => JSON.stringify({ score: item.score, score_units: plan.scoreUnits })),
    ],
  );
}
