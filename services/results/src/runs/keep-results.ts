import { hash } from 'node:crypto';
import type { TenantTx } from '@mad/tenancy';
import { cacheKey, replacement, writesCache, type Replacement } from '../domain/cache-entry.ts';
import { ENTRY_COLUMNS, entryOf, type EntryRow } from './cache.ts';
import type { JobImage, JobTask } from './job-image.ts';
import { familyOf } from './plan.ts';

/** A work item that was just scored. */
export interface ScoredItem {
  item_no: number;
  input_signature: string;
  smiles: string;
  confidence_score: number | null;
  score: number | null;
}

/** What may become an entry's source: a scored item under its key, with the poses it has. */
interface Candidate {
  key: string;
  item: ScoredItem;
  holds: Holding;
}

/** How many poses an item has, and how many of these have a structure. */
interface Holding {
  poses: number;
  structures: number;
}

/**
 * Leaves scored items to later jobs, where the job's policy wants it and nothing better is kept; they expire after
 * `ttlDays`, where given. What is new goes in first, then entries that were there are locked, judged and given their new
 * source, each time in the order of their keys: two jobs that finish the same inputs never wait for each other in a
 * circle, and neither takes the other's better result away. A former source stays in the history.
 */
export async function keepResults(
  tx: TenantTx,
  job: JobImage,
  task: JobTask,
  items: readonly ScoredItem[],
  ttlDays: number | undefined,
): Promise<void> {
  if (!writesCache(job.row.cache_policy) || items.length === 0) return;
  const poses = await countPoses(tx, job, task, items);
  const byKey = new Map(
    items.map((item): [string, Candidate] => {
      const key = cacheKey(task.plan.task, item.input_signature);
      return [key, { key, item, holds: poses.get(item.item_no) ?? { poses: 0, structures: 0 } }];
    }),
  );
  const all = [...byKey.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
  const inserted = await insert(tx, job, task, all, ttlDays);
  const others = all.filter(({ key }) => !inserted.has(key));
  if (others.length > 0) await replace(tx, job, task, others, ttlDays);
}

async function countPoses(
  tx: TenantTx,
  job: JobImage,
  task: JobTask,
  items: readonly ScoredItem[],
): Promise<Map<number, Holding>> {
  const rows = await tx.query<{ item_no: number } & Holding>(
    `SELECT item_no, count(*)::int AS poses, count(pose_object)::int AS structures FROM docking_results
      WHERE job_id = $1 AND task_id = $2 AND item_no = ANY ($3::int[]) GROUP BY item_no`,
    [job.row.job_id, task.taskId, items.map((item) => item.item_no)],
  );
  return new Map(rows.map(({ item_no: itemNo, ...holds }) => [itemNo, holds]));
}

/** The sources as the columns of `n`, from $4 to $11; $12 is how many replicas each has. */
const SOURCES = `unnest($4::text[], $5::text[], $6::int[], $7::float8[], $8::text[], $9::jsonb[], $10::jsonb[], $11::text[])
    AS n (cache_key, input_signature, item_no, confidence, smiles, artifacts, summary, family)`;

function sourceParams(job: JobImage, { taskId, plan }: JobTask, chosen: readonly Candidate[]): unknown[] {
  const family = familyOf(plan);
  return [
    job.row.job_id,
    taskId,
    plan.engine,
    chosen.map(({ key }) => key),
    chosen.map(({ item }) => item.input_signature),
    chosen.map(({ item }) => item.item_no),
    chosen.map(({ item }) => item.confidence_score),
    chosen.map(({ item }) => item.smiles),
    chosen.map(({ holds }) => JSON.stringify(holds)),
    chosen.map(({ item }) => JSON.stringify({ score: item.score, score_units: plan.scoreUnits })),
    chosen.map(({ item }) => family && hash('sha256', family.textOf(item.smiles))),
    family?.replicas ?? null,
  ];
}

/** Returns the keys that were new. */
async function insert(
  tx: TenantTx,
  job: JobImage,
  task: JobTask,
  all: readonly Candidate[],
  ttlDays: number | undefined,
): Promise<Set<string>> {
  const rows = await tx.query<{ cache_key: string }>(
    `INSERT INTO result_cache (cache_key, task, input_signature, canonical_job_id, canonical_task_id, canonical_item_no,
        confidence_score, engine, smiles, artifact_map, metrics_summary, family, replicas, expires_at)
      SELECT cache_key, $13, input_signature, $1, $2, item_no, confidence, $3, smiles, artifacts, summary, family, $12::int,
        now() + make_interval(days => $14::int)
      FROM ${SOURCES} ON CONFLICT (cache_key) DO NOTHING RETURNING cache_key`,
    [...sourceParams(job, task, all), task.plan.task, ttlDays ?? null],
  );
  return new Set(rows.map((row) => row.cache_key));
}

async function replace(
  tx: TenantTx,
  job: JobImage,
  task: JobTask,
  candidates: readonly Candidate[],
  ttlDays: number | undefined,
): Promise<void> {
  const { cache_policy: policy, max_age_s: maxAgeS } = job.row;
  const rows = await tx.query<EntryRow>(
    `SELECT ${ENTRY_COLUMNS} FROM result_cache c WHERE c.cache_key = ANY ($1::text[]) ORDER BY c.cache_key FOR UPDATE`,
    [candidates.map(({ key }) => key)],
  );
  const kept = new Map(rows.map((row) => [row.cache_key, entryOf(row)]));
  const now = Date.now();
  const reasons: Replacement[] = [];
  const chosen = candidates.filter(({ key, item }) => {
    const entry = kept.get(key);
    const reason = entry && replacement(entry, item.confidence_score, policy, maxAgeS, now);
    if (reason !== undefined) reasons.push(reason);
    return reason !== undefined;
  });
  if (chosen.length === 0) return;
  await tx.execute(
    `INSERT INTO result_cache_history (cache_key, version, canonical_job_id, canonical_task_id, canonical_item_no,
        confidence_score, metrics_summary, status, hit_count, last_used_at, created_at, reason)
      SELECT c.cache_key, c.version, c.canonical_job_id, c.canonical_task_id, c.canonical_item_no, c.confidence_score,
        c.metrics_summary, c.status, c.hit_count, c.last_used_at, c.created_at, n.reason
      FROM unnest($1::text[], $2::text[]) AS n (cache_key, reason) JOIN result_cache c USING (cache_key)`,
    [chosen.map(({ key }) => key), reasons],
  );
  await tx.execute(
    `UPDATE result_cache c SET canonical_job_id = $1, canonical_task_id = $2, canonical_item_no = n.item_no,
        confidence_score = n.confidence, engine = $3, smiles = n.smiles, artifact_map = n.artifacts,
        metrics_summary = n.summary, family = n.family, replicas = $12::int, status = 'valid', version = c.version + 1, hit_count = 0, last_used_at = NULL,
        created_at = now(), expires_at = now() + make_interval(days => $13::int)
      FROM ${SOURCES} WHERE c.cache_key = n.cache_key`,
    [...sourceParams(job, task, chosen), ttlDays ?? null],
  );
}
