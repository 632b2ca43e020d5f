import type { JsonObject } from '@bufbuild/protobuf';
import type { TenantTx } from '@mad/tenancy';
import {
  cacheKey,
  missOf,
  type CacheEntry,
  type CacheEntryStatus,
  type CacheMiss,
  type Demand,
} from '../domain/cache-entry.ts';
import { planned } from './planned.ts';
import { endedParams, endedWith, type EndedWith } from './statistics.ts';

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

/** What a look-up found for a signature: what answers it, or why nothing does. */
export type LookedUp = { hit: CacheHit; miss?: undefined } | { hit?: undefined; miss: CacheMiss };

/** The columns that decide about an entry. */
export interface EntryRow {
  cache_key: string;
  status: CacheEntryStatus;
  confidence_score: number | null;
  expires_at: Date | null;
  created_at: Date;
  complete: boolean;
}

interface HitRow extends EntryRow {
  canonical_job_id: string;
  canonical_task_id: string;
  canonical_item_no: number;
  score: number | null;
  result_data: JsonObject | null;
  service_name: string;
}

/**
 * Of an entry `c`: its source has every pose it had when it became one, and the structures of as many. Poses go with the
 * partition of their month, structures with their object.
 */
const COMPLETE = `(coalesce((c.artifact_map ->> 'poses')::int, 0) = 0 OR (
    SELECT count(*) >= (c.artifact_map ->> 'poses')::int
      AND count(o.object_id) >= coalesce((c.artifact_map ->> 'structures')::int, 0)
    FROM docking_results d LEFT JOIN stored_objects o ON o.object_id = d.pose_object AND o.state = 'kept'
    WHERE d.job_id = c.canonical_job_id AND d.task_id = c.canonical_task_id AND d.item_no = c.canonical_item_no))`;

/** The columns of an EntryRow, of an entry `c`. */
export const ENTRY_COLUMNS = `c.cache_key, c.status, c.confidence_score, c.expires_at, c.created_at, ${COMPLETE} AS complete`;

/** What decides about an entry. */
export function entryOf(row: EntryRow): CacheEntry {
  const { status, confidence_score: confidence, expires_at: expiresAt, created_at: createdAt, complete } = row;
  return { status, confidence, expiresAt: expiresAt?.getTime() ?? null, createdAt: createdAt.getTime(), complete };
}

/** What earlier results say to each signature of one task; a signature without an entry is left out. One statement for all. */
export async function lookUp(
  tx: TenantTx,
  task: string,
  signatures: readonly string[],
  demand: Demand,
): Promise<Map<string, LookedUp>> {
  const keys = [...new Set(signatures)].sort().map((signature) => cacheKey(task, signature));
  const rows = await tx.query<HitRow>(
    `SELECT ${ENTRY_COLUMNS}, c.canonical_job_id, c.canonical_task_id, c.canonical_item_no, t.score, t.result_data,
        t.service_name
      FROM result_cache c JOIN task_results t
        ON t.job_id = c.canonical_job_id AND t.task_id = c.canonical_task_id AND t.item_no = c.canonical_item_no
      WHERE c.cache_key = ANY ($1::text[]) AND t.status = 'scored'`,
    [keys],
  );
  const now = Date.now();
  return new Map(
    rows.map((row): [string, LookedUp] => {
      const miss = missOf(entryOf(row), demand, now);
      return [row.cache_key.slice(task.length + 1), miss === undefined ? { hit: hitOf(row) } : { miss }];
    }),
  );
}

/** An item whose replicas are the first ones of what is asked for. */
export interface Beginning {
  jobId: string;
  taskId: string;
  itemNo: number;
}

/**
 * The results with most replicas, but fewer than `replicas`, of each family of one task; who asks for no more than these has
 * a look-up of its own. Confidence is not asked for: it comes with the further replicas.
 */
export async function lookUpBeginnings(
  tx: TenantTx,
  task: string,
  { families, replicas, demand }: { families: readonly string[]; replicas: number; demand: Demand },
): Promise<Map<string, Beginning>> {
  const rows = await tx.query<HitRow & { family: string }>(
    `SELECT ${ENTRY_COLUMNS}, c.family, c.canonical_job_id, c.canonical_task_id, c.canonical_item_no
      FROM result_cache c JOIN task_results t
        ON t.job_id = c.canonical_job_id AND t.task_id = c.canonical_task_id AND t.item_no = c.canonical_item_no
      WHERE c.family = ANY ($1::text[]) AND c.task = $2 AND c.replicas < $3 AND t.status = 'scored' ORDER BY c.replicas`,
    [[...new Set(families)].sort(), task, replicas],
  );
  const now = Date.now();
  const usable = rows.filter((row) => missOf(entryOf(row), { ...demand, minConfidence: 0 }, now) === undefined);
  // The last one of a family stays: it has most.
  return new Map(
    usable.map((row): [string, Beginning] => {
      const { canonical_job_id: jobId, canonical_task_id: taskId, canonical_item_no: itemNo } = row;
      return [row.family, { jobId, taskId, itemNo }];
    }),
  );
}

function hitOf(row: HitRow): CacheHit {
  return {
    jobId: row.canonical_job_id,
    taskId: row.canonical_task_id,
    itemNo: row.canonical_item_no,
    score: row.score,
    resultData: row.result_data,
    confidence: row.confidence_score,
    serviceName: row.service_name,
  };
}

/** Items that were answered from the cache: all of a job that was just made, or what ended with an event. */
export type Answered = { jobId: string } | EndedWith;

const answeredOf = (answered: Answered, columns: string): string =>
  'executionId' in answered ? endedWith(columns) : `SELECT ${columns} FROM task_results WHERE job_id = $1`;
const answeredParams = (answered: Answered): unknown[] => [
  answered.jobId,
  ...('executionId' in answered ? endedParams(answered) : []),
];

/** Counts the hits. Rows are locked in the order of their keys. */
export async function countHits(tx: TenantTx, answered: Answered): Promise<void> {
  await planned(
    tx,
    `WITH used AS (
        SELECT (k.plan ->> 'task') || ':' || t.input_signature AS cache_key, count(*) AS hits
        FROM (${answeredOf(answered, 'task_id, status, input_signature')}) t JOIN job_tasks k ON k.job_id = $1 AND k.task_id = t.task_id
        WHERE t.status = 'cached' GROUP BY 1),
      locked AS (
        SELECT c.cache_key, used.hits FROM result_cache c JOIN used USING (cache_key)
        ORDER BY c.cache_key FOR UPDATE OF c)
      UPDATE result_cache c SET hit_count = c.hit_count + locked.hits, last_used_at = now()
      FROM locked WHERE c.cache_key = locked.cache_key`,
    answeredParams(answered),
  );
}

/** Core milliseconds that the sources of the answers had taken, each its share of the execution it was part of. */
export async function savedCoreMs(tx: TenantTx, answered: Answered): Promise<number> {
  const [row] = await planned<{ saved: number }>(
    tx,
    `SELECT coalesce(round(sum(e.core_ms::float8 / greatest(e.items, 1))), 0)::bigint AS saved
      FROM (${answeredOf(answered, 'status, reused_from_job_id, reused_from_task_id, reused_from_item_no')}) t
        JOIN task_results s ON s.job_id = t.reused_from_job_id AND s.task_id = t.reused_from_task_id AND s.item_no = t.reused_from_item_no
        JOIN task_executions e ON e.task_execution_id = s.task_execution_id
      WHERE t.status = 'cached'`,
    answeredParams(answered),
  );
  return row!.saved;
}
