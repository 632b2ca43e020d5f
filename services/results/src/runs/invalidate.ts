import { isDeepStrictEqual } from 'node:util';
import { notFound } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import type { CacheInvalidationRow } from '../db/entities/cache-invalidation.ts';
import { conditionOf, type CachePredicate } from '../domain/cache-predicate.ts';
import { appendAudit } from './audit.ts';
import { planned } from './planned.ts';
import { refuseReuse } from './request-reused.ts';
import { holdOffRetention } from './retention-lock.ts';

/** The counts are not there in a tenant of the version before them. */
const COLUMNS = `invalidation_id, predicate, reason, entries, jobs, created_by, created_at, undone_by, undone_at, restored,
  coalesce((to_jsonb(i) -> 'items')::int, 0) AS items, coalesce((to_jsonb(i) -> 'exports')::int, 0) AS exports`;
/** An invalidation is of no one job. */
const NO_JOB = '00000000-0000-0000-0000-000000000000';

/** What an invalidation touches. */
export interface Touched {
  entries: number;
  /** Jobs, and items in them, that these results answered; not the ones that computed them. */
  jobs: number;
  items: number;
  /** Exports of the tasks that computed these results or were answered by them; failed ones hold nothing. */
  exports: number;
}

/** The results in `chosen`, counted with what they answered and were written to. */
const TOUCHED = `, answered AS MATERIALIZED (
    SELECT t.job_id, t.task_id, count(*) AS items
    FROM chosen n JOIN task_results t ON t.reused_from_job_id = n.canonical_job_id
      AND t.reused_from_task_id = n.canonical_task_id AND t.reused_from_item_no = n.canonical_item_no
    WHERE t.status = 'cached' AND t.job_id <> n.canonical_job_id GROUP BY 1, 2)
  SELECT (SELECT count(*) FROM chosen)::int AS entries,
    (SELECT count(DISTINCT job_id) FROM answered)::int AS jobs,
    (SELECT coalesce(sum(items), 0) FROM answered)::int AS items,
    (SELECT count(*) FROM exports e WHERE e.state <> 'failed' AND (e.job_id, e.task_id) IN (
      SELECT job_id, task_id FROM answered UNION SELECT canonical_job_id, canonical_task_id FROM chosen))::int AS exports`;

const CHOSEN = 'c.cache_key, c.version, c.status, c.canonical_job_id, c.canonical_task_id, c.canonical_item_no';

/** Counts what an invalidation would touch. */
export async function countInvalidation(tx: TenantTx, predicate: CachePredicate): Promise<Touched> {
  const { sql, params } = conditionOf(predicate, 1);
  const [touched] = await planned<Touched>(
    tx,
    `WITH chosen AS (SELECT ${CHOSEN} FROM result_cache c WHERE ${sql})${TOUCHED}`,
    params,
  );
  return touched!;
}

/** What is invalidated, why and by whom. */
export interface NewInvalidation {
  id: string;
  predicate: CachePredicate;
  /** As the row keeps it. */
  predicateJson: object;
  reason: string;
  userId: string;
}

/**
 * Takes the results that the predicate means out of the cache and notes which they were. Entries are locked in the order
 * of their keys, as everybody locks them. One of this id that is there already is answered as it is; ALREADY_EXISTS when it
 * was made for something else.
 */
export async function invalidate(
  tx: TenantTx,
  { id, predicate, predicateJson, reason, userId }: NewInvalidation,
): Promise<CacheInvalidationRow> {
  const made = await tx.execute(
    `INSERT INTO cache_invalidations (invalidation_id, predicate, reason, entries, jobs, created_by)
      VALUES ($1, $2, $3, 0, 0, $4) ON CONFLICT (invalidation_id) DO NOTHING`,
    [id, JSON.stringify(predicateJson), reason, userId],
  );
  if (made === 0) {
    const first = await requireInvalidation(tx, id);
    const other = { predicate: !isDeepStrictEqual(first.predicate, predicateJson), reason: first.reason !== reason };
    refuseReuse(id, other);
    return first;
  }
  const { sql, params } = conditionOf(predicate, 2);
  const [touched] = await planned<Touched>(
    tx,
    `WITH chosen AS MATERIALIZED (
        SELECT ${CHOSEN} FROM result_cache c WHERE ${sql} ORDER BY c.cache_key FOR UPDATE),
      taken AS (UPDATE result_cache c SET status = 'invalid' FROM chosen n WHERE c.cache_key = n.cache_key),
      noted AS (INSERT INTO cache_invalidation_entries (invalidation_id, cache_key, version, status)
        SELECT $1, cache_key, version, status FROM chosen)${TOUCHED}`,
    [id, ...params],
  );
  const { entries, jobs, items, exports } = touched!;
  await tx.execute('UPDATE cache_invalidations SET entries = $2, jobs = $3 WHERE invalidation_id = $1', [
    id,
    entries,
    jobs,
  ]);
  if (await keepsCounts(tx)) {
    await tx.execute('UPDATE cache_invalidations SET items = $2, exports = $3 WHERE invalidation_id = $1', [
      id,
      items,
      exports,
    ]);
  }
  const metadata = { invalidation_id: id, entries, jobs, reason };
  await appendAudit(tx, { userId, action: 'cache.invalidate', jobId: NO_JOB, outcome: 'ok', metadata });
  return { ...(await requireInvalidation(tx, id)), items, exports };
}

/** Whether the tenant has columns for them: it does from the version after SERVED_FROM on. */
async function keepsCounts(tx: TenantTx): Promise<boolean> {
  const columns = await tx.query(
    `SELECT FROM pg_attribute WHERE attrelid = 'cache_invalidations'::regclass AND attname = 'exports'`,
  );
  return columns.length > 0;
}

/**
 * Gives back the results an invalidation took out, each as it was. One that was replaced since is no source again, but is
 * not called invalid any more either. A repeat changes nothing. NOT_FOUND when there is no such invalidation.
 */
export async function undoInvalidation(tx: TenantTx, id: string, userId: string): Promise<CacheInvalidationRow> {
  // A pin may come back, and needs its result.
  await holdOffRetention(tx);
  const row = await requireInvalidation(tx, id, 'FOR UPDATE');
  if (row.undone_at !== null) return row;
  const [back] = await planned<{ restored: number }>(
    tx,
    `WITH back AS MATERIALIZED (
        SELECT c.cache_key, e.status FROM cache_invalidation_entries e JOIN result_cache c USING (cache_key)
        WHERE e.invalidation_id = $1 AND c.version = e.version AND c.status = 'invalid' ORDER BY c.cache_key FOR UPDATE OF c),
      given AS (UPDATE result_cache c SET status = back.status FROM back WHERE c.cache_key = back.cache_key),
      former AS (UPDATE result_cache_history h SET status = 'valid' FROM cache_invalidation_entries e
        WHERE e.invalidation_id = $1 AND h.cache_key = e.cache_key AND h.version = e.version)
      SELECT count(*)::int AS restored FROM back`,
    [id],
  );
  const { restored } = back!;
  await tx.execute(
    'UPDATE cache_invalidations SET undone_at = now(), undone_by = $2, restored = $3 WHERE invalidation_id = $1',
    [id, userId, restored],
  );
  const metadata = { invalidation_id: id, restored };
  await appendAudit(tx, { userId, action: 'cache.undo_invalidation', jobId: NO_JOB, outcome: 'ok', metadata });
  return requireInvalidation(tx, id);
}

async function requireInvalidation(
  tx: TenantTx,
  id: string,
  lock: '' | 'FOR UPDATE' = '',
): Promise<CacheInvalidationRow> {
  const [row] = await tx.query<CacheInvalidationRow>(
    `SELECT ${COLUMNS} FROM cache_invalidations i WHERE invalidation_id = $1 ${lock}`,
    [id],
  );
  if (row === undefined) throw notFound('cache invalidation', id);
  return row;
}

/** Invalidations, newest first, each with where a page would end at it. */
export async function readInvalidations(
  tx: TenantTx,
  after: readonly [created: string, id: string] | undefined,
  limit: number,
): Promise<(CacheInvalidationRow & { cursor: string })[]> {
  return tx.query(
    `SELECT ${COLUMNS}, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS cursor
      FROM cache_invalidations i
      WHERE $1::timestamptz IS NULL OR (created_at, invalidation_id) < ($1, $2::uuid)
      ORDER BY created_at DESC, invalidation_id DESC LIMIT $3`,
    [after?.[0] ?? null, after?.[1] ?? null, limit],
  );
}
