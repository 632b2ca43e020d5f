import type { Limit, Limits } from '../domain/retention.ts';

/** A job whose hits are being exported waits for the export, but not for ever: nobody may go on with it. */
const EXPORT_WAIT = `interval '1 day'`;
/** Stands for the pipeline of jobs for which nobody noted one. */
const UNKNOWN = '00000000-0000-0000-0000-000000000000';

/** $1 … $5 of the statements below. */
export function limitParams({ byPipeline, others, unknown }: Limits): unknown[] {
  const all: [string, Limit][] = [...byPipeline, [UNKNOWN, unknown]];
  const cutoffOf = ({ cutoff }: Limit): string => cutoff?.toISOString() ?? '-infinity';
  return [
    all.map(([pipelineId]) => pipelineId),
    all.map(([, limit]) => cutoffOf(limit)),
    all.map(([, limit]) => limit.keep),
    cutoffOf(others),
    others.keep,
  ];
}

const RULES = `rules AS (SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::int[]) AS r (pipeline_id, cutoff, keep)),
  others AS (SELECT $4::timestamptz AS cutoff, $5::int AS keep)`;
const RULE_OF = (job: string, rule: string): string =>
  `LEFT JOIN rules ${rule} ON ${rule}.pipeline_id = coalesce(${job}.pipeline_id, '${UNKNOWN}')`;
const CUTOFF = (rule: string): string => `coalesce(${rule}.cutoff, (SELECT cutoff FROM others))`;
const KEEP = (rule: string): string => `coalesce(${rule}.keep, (SELECT keep FROM others))`;

/** Whether a job's time is over; one that has not ended is never. */
const EXPIRED = (job: string, rule: string): string => `coalesce(${job}.ended_at < ${CUTOFF(rule)}, false)`;

const EXPORTED = (job: string): string =>
  `(SELECT true FROM exports e WHERE e.job_id = ${job}.job_id AND e.created_at > now() - ${EXPORT_WAIT} AND e.state = 'running' LIMIT 1)`;

/**
 * Jobs that may have something to lose, the youngest first, below $6, at most $7: those that have all of their results; those
 * whose items were needed, or kept as hits, when they were looked at before, and perhaps are not any more. What answers a job
 * is older than it, so that nothing is dropped before what it answers.
 */
export const CANDIDATES = `WITH ${RULES}
  SELECT j.job_id, j.event_seq, j.requested, ${KEEP('r')} AS keep, j.results_dropped_at IS NULL AS fresh
  FROM jobs j ${RULE_OF('j', 'r')}
  WHERE j.ended_at < greatest((SELECT cutoff FROM others), (SELECT max(cutoff) FROM rules)) AND j.job_id < $6 AND ${EXPIRED('j', 'r')}
    AND (j.results_dropped_at IS NULL OR j.results_needed > 0 OR j.results_top > ${KEEP('r')}) AND ${EXPORTED('j')} IS NULL
  ORDER BY j.job_id DESC LIMIT $7`;

/**
 * Of the months from $6[i] to below $7[i], numbered from 1: when, seen from $8, the time of all of their jobs will be over;
 * null when it is, "infinity" when it never will be. A job that is running could end now. Where $9 is true a job must have
 * dropped its results as well; otherwise those only wait that are being exported.
 */
export const MONTHS = `WITH ${RULES}
  SELECT m.place::int AS place, (
    SELECT max(CASE
      WHEN NOT ${EXPIRED('j', 'r')} AND ${CUTOFF('r')} = '-infinity' THEN 'infinity'
      WHEN NOT ${EXPIRED('j', 'r')} THEN $8::timestamptz + (coalesce(j.ended_at, $8::timestamptz) - ${CUTOFF('r')})
      WHEN j.results_dropped_at IS NULL AND ($9::boolean OR ${EXPORTED('j')} IS NOT NULL) THEN $8::timestamptz + ${EXPORT_WAIT} END)
    FROM jobs j ${RULE_OF('j', 'r')} WHERE j.job_id >= m.low AND j.job_id < m.high)::text AS over_at
  FROM unnest($6::uuid[], $7::uuid[]) WITH ORDINALITY AS m (low, high, place)`;

const HIT = (item: string): string => `${item}.status IN ('scored', 'cached') AND ${item}.score IS NOT NULL`;
const LOWER = (task: string): string => `coalesce((${task}.plan ->> 'lowerIsBetter')::boolean, false)`;

/** The tasks of job $1 from $2 on, each with the direction of its scores. */
export const TASKS = `SELECT k.task_id, ${LOWER('k')} AS lower FROM job_tasks k WHERE k.job_id = $1 AND k.task_id >= $2 ORDER BY k.task_id`;

/** Where a slice of at most $4 items of task $2 of job $1 ends, that begins behind item $3. */
export const SLICE = `SELECT count(*)::int AS rows, max(item_no) AS last FROM (
  SELECT item_no FROM task_results WHERE job_id = $1 AND task_id = $2 AND item_no > $3 ORDER BY item_no LIMIT $4) s`;

/** The last of the hits that a task keeps; no row where it has no more than those. */
const LINE = (job: string, task: string, keep: string, direction: string): string => `
  SELECT b.score, b.item_no FROM task_results b WHERE b.job_id = ${job} AND b.task_id = ${task} AND ${HIT('b')}
  ORDER BY b.score ${direction}, b.item_no ${direction} OFFSET greatest(${keep} - 1, 0) LIMIT 1`;

/** The slice's part of a table: everything is walked along an index between its bounds, whatever the planner believes. */
const IN_SLICE = (job: string, task: string, item: string): string =>
  `${job} = $6::uuid AND ${task} = $7::text AND ${item} > $8::int AND ${item} <= $9::int`;

/**
 * The items of job $6, task $7 behind item $8 up to $9, whose $10 best hits are kept: `doomed` those that go. An item stays
 * with its poses also when it is needed beyond its own job: it is pinned; it answers an item of a job whose time is not over,
 * or one that is kept as a hit there; somebody is about to top it up. What else refers to items adds its line to `needed`, and
 * takes `holdOffRetention` when it begins to.
 */
const JUDGED = (lower: boolean): string => `${RULES},
  line AS MATERIALIZED (${LINE('$6', '$7', '$10::int', lower ? 'ASC' : 'DESC')}),
  ranked AS MATERIALIZED (
    SELECT t.item_no, t.status, t.task_execution_id, pg_column_size(t) AS bytes, $10::int > 0 AND ${HIT('t')}
      AND coalesce((SELECT (t.score, t.item_no) ${lower ? '<=' : '>='} (line.score, line.item_no) FROM line), true) AS top
    FROM task_results t WHERE ${IN_SLICE('t.job_id', 't.task_id', 't.item_no')}),
  answered AS MATERIALIZED (
    SELECT r.reused_from_item_no AS item_no, r.job_id, r.task_id, r.score, r.item_no AS answered_no FROM task_results r
    WHERE r.status = 'cached' AND ${IN_SLICE('r.reused_from_job_id', 'r.reused_from_task_id', 'r.reused_from_item_no')}),
  users AS MATERIALIZED (
    SELECT a.job_id, a.task_id, ${KEEP('ur')} AS keep, NOT ${EXPIRED('uj', 'ur')} AS keeps_all, ${LOWER('uk')} AS lower, l.score, l.item_no
    FROM (SELECT DISTINCT job_id, task_id FROM answered) a JOIN jobs uj ON uj.job_id = a.job_id
      JOIN job_tasks uk ON uk.job_id = a.job_id AND uk.task_id = a.task_id ${RULE_OF('uj', 'ur')} LEFT JOIN LATERAL (
        (SELECT * FROM (${LINE('a.job_id', 'a.task_id', KEEP('ur'), 'ASC')}) one WHERE ${LOWER('uk')}) UNION ALL
        (SELECT * FROM (${LINE('a.job_id', 'a.task_id', KEEP('ur'), 'DESC')}) one WHERE NOT ${LOWER('uk')})) l ON true),
  needed AS MATERIALIZED (
    SELECT c.canonical_item_no AS item_no FROM result_cache c
      WHERE c.status = 'pinned' AND ${IN_SLICE('c.canonical_job_id', 'c.canonical_task_id', 'c.canonical_item_no')}
    UNION SELECT a.item_no FROM answered a JOIN users u USING (job_id, task_id)
      WHERE u.keeps_all OR (u.keep > 0 AND a.score IS NOT NULL AND (u.score IS NULL OR CASE WHEN u.lower
        THEN (a.score, a.answered_no) <= (u.score, u.item_no) ELSE (a.score, a.answered_no) >= (u.score, u.item_no) END))
    UNION SELECT x.extends_item_no FROM task_results x
      WHERE x.status = 'pending' AND ${IN_SLICE('x.extends_job_id', 'x.extends_task_id', 'x.extends_item_no')}),
  judged AS MATERIALIZED (SELECT r.*, NOT r.top AND r.status = 'scored' AND n.item_no IS NOT NULL AS needed
    FROM ranked r LEFT JOIN needed n USING (item_no)),
  doomed AS MATERIALIZED (SELECT item_no, bytes FROM judged WHERE NOT top AND NOT needed)`;

/** What a slice loses, and what stays of it. */
export interface Loss {
  items: number;
  needed: number;
  /** Items that stay with poses of their own. */
  kept: number;
  poses: number;
  cache_entries: number;
  bytes: number;
}

// A row is measured where it is read: what was passed on through a join may be some bytes shorter.
const COUNTED = `
  SELECT i.items, j.needed, j.kept, p.poses, e.cache_entries, i.bytes + p.bytes AS bytes
  FROM (SELECT count(*)::int AS items, coalesce(sum(bytes), 0)::bigint AS bytes FROM doomed) i,
    (SELECT (count(*) FILTER (WHERE needed))::int AS needed, (count(*) FILTER (WHERE (top OR needed) AND status = 'scored'))::int AS kept FROM judged) j,
    (SELECT count(*)::int AS poses, coalesce(sum(d.bytes), 0)::bigint AS bytes FROM (
      SELECT d.item_no, pg_column_size(d) AS bytes FROM docking_results d WHERE ${IN_SLICE('d.job_id', 'd.task_id', 'd.item_no')} OFFSET 0) d
      JOIN doomed USING (item_no)) p,
    (SELECT count(*)::int AS cache_entries FROM result_cache o JOIN doomed n ON o.canonical_item_no = n.item_no
      WHERE ${IN_SLICE('o.canonical_job_id', 'o.canonical_task_id', 'o.canonical_item_no')}) e`;

/** Counts what a slice loses. */
export const countSlice = (lower: boolean): string => `WITH ${JUDGED(lower)} ${COUNTED}`;

/** Deletes the items that a slice loses, and counts them. Entries of the cache go with them; poses show nowhere any more. */
export const dropSlice = (lower: boolean): string => `WITH ${JUDGED(lower)},
  gone AS (DELETE FROM task_results t USING doomed n WHERE t.item_no = n.item_no AND ${IN_SLICE('t.job_id', 't.task_id', 't.item_no')})
  ${COUNTED}`;

/** Counts events of job $1 behind number $2 up to $3. */
export const COUNT_EVENTS = `SELECT count(*)::int AS events, coalesce(sum(bytes), 0)::bigint AS bytes FROM (
  SELECT pg_column_size(e) AS bytes FROM job_events e WHERE e.job_id = $1 AND e.seq_no > $2 AND e.seq_no <= $3 OFFSET 0) e`;

/**
 * Gives up structures of job $1, at most $2 objects: those that no pose of an item is in that is left. An object is of one
 * execution, and few items of it are left.
 */
export const DROP_STRUCTURES = `UPDATE stored_objects SET state = 'dropped' WHERE object_id IN (
  SELECT o.object_id FROM stored_objects o WHERE o.owner_id = $1 AND o.purpose = 'poses' AND o.state = 'kept' AND (
    SELECT true FROM task_results t CROSS JOIN LATERAL (
      SELECT FROM docking_results d WHERE d.job_id = t.job_id AND d.task_id = t.task_id AND d.item_no = t.item_no
        AND d.pose_object = o.object_id OFFSET 0) d
    WHERE t.task_execution_id = o.task_execution_id LIMIT 1) IS NULL
  LIMIT $2)`;

/** The item in which the $4th pose of job $1 behind item ($2, $3) is; no row when there are not so many. */
export const POSES_SLICE = `SELECT task_id, item_no FROM docking_results WHERE job_id = $1 AND (task_id, item_no) > ($2::text, $3::int)
  ORDER BY task_id, item_no, replicate, pose_rank OFFSET $4 - 1 LIMIT 1`;

const IN_POSES_SLICE = (row: string): string =>
  `${row}.job_id = $1::uuid AND (${row}.task_id, ${row}.item_no) > ($2::text, $3::int)
    AND (NOT $4::boolean OR (${row}.task_id, ${row}.item_no) <= ($5::text, $6::int))`;

/** Deletes poses of job $1 behind item ($2, $3), where $4 is true up to item ($5, $6), whose item is gone. */
export const CLEAR_POSES = `DELETE FROM docking_results d WHERE ${IN_POSES_SLICE('d')} AND NOT EXISTS (
  SELECT FROM task_results t WHERE t.task_id = d.task_id AND t.item_no = d.item_no AND ${IN_POSES_SLICE('t')})`;
