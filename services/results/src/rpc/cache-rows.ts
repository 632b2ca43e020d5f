import type { JsonValue } from '@bufbuild/protobuf';
import type { TenantTx } from '@mad/tenancy';
import type { ResultCacheHistoryRow, ResultCacheRow } from '../db/entities/cache.ts';
import { cacheKey, type CacheEntryStatus } from '../domain/cache-entry.ts';
import { planned } from '../runs/planned.ts';

const COLUMNS = `c.cache_key, c.task, c.input_signature, c.canonical_job_id, c.canonical_task_id, c.canonical_item_no,
  c.confidence_score, c.status, c.hit_count, c.last_used_at, c.created_at, c.expires_at, c.version, c.engine, c.smiles`;

/** Where a page of entries ends: when, to the microsecond that Postgres keeps and JavaScript does not, and its key. */
export type EntryCursor = [created: string, key: string];

export const isEntryCursor = (cursor: JsonValue): boolean =>
  Array.isArray(cursor) &&
  cursor.length === 2 &&
  typeof cursor[1] === 'string' &&
  typeof cursor[0] === 'string' &&
  /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/.test(cursor[0]) &&
  !Number.isNaN(Date.parse(cursor[0]));

/** Which entries to list. */
export interface EntryQuery {
  /** Empty for any. */
  task: string;
  status: CacheEntryStatus | undefined;
  after: EntryCursor | undefined;
  limit: number;
}

/** Entries, newest first, each with where a page would end at it. */
export async function readEntries(
  tx: TenantTx,
  { task, status, after, limit }: EntryQuery,
): Promise<(ResultCacheRow & { cursor: string })[]> {
  // The status is one of three words of ours, and written out: the index of the few that are not valid says it too.
  return tx.query(
    `SELECT ${COLUMNS}, to_char(c.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS cursor
      FROM result_cache c
      WHERE ($1 = '' OR c.task = $1) ${status === undefined ? '' : `AND c.status = '${status}'`}
        AND ($2::timestamptz IS NULL OR (c.created_at, c.cache_key) < ($2, $3))
      ORDER BY c.created_at DESC, c.cache_key DESC LIMIT $4`,
    [task, after?.[0] ?? null, after?.[1] ?? null, limit],
  );
}

/** The entry of one input of one task; undefined when nothing is kept for it. */
export async function readEntry(
  tx: TenantTx,
  task: string,
  inputSignature: string,
): Promise<ResultCacheRow | undefined> {
  const [row] = await tx.query<ResultCacheRow>(`SELECT ${COLUMNS} FROM result_cache c WHERE c.cache_key = $1`, [
    cacheKey(task, inputSignature),
  ]);
  return row;
}

/** The sources an entry had before, newest first. */
export async function readHistory(tx: TenantTx, key: string): Promise<ResultCacheHistoryRow[]> {
  return tx.query<ResultCacheHistoryRow>(
    `SELECT cache_key, version, canonical_job_id, canonical_task_id, canonical_item_no, confidence_score, status, hit_count,
        last_used_at, created_at, replaced_at, reason
      FROM result_cache_history WHERE cache_key = $1 ORDER BY version DESC LIMIT 100`,
    [key],
  );
}

/** What is kept of one task. */
export interface TaskStatistics {
  task: string;
  usable: string;
  pinned: string;
  expired: string;
  invalid: string;
  hits: string;
}

/** Counts all of the cache: it is read whole, which takes its time where it is large. */
export async function readStatistics(tx: TenantTx): Promise<TaskStatistics[]> {
  return planned<TaskStatistics>(
    tx,
    `SELECT task,
        count(*) FILTER (WHERE status = 'pinned' OR (status = 'valid' AND (expires_at IS NULL OR expires_at > now()))) AS usable,
        count(*) FILTER (WHERE status = 'pinned') AS pinned,
        count(*) FILTER (WHERE status = 'valid' AND expires_at <= now()) AS expired,
        count(*) FILTER (WHERE status = 'invalid') AS invalid, sum(hit_count) AS hits
      FROM result_cache GROUP BY task ORDER BY task`,
    [],
  );
}
