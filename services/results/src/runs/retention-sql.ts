import type { Limit, Limits } from '../domain/retention.ts';

/** A job whose hits are being exported waits for the export, but not for ever: nobody may go on with it. */
const EXPORT_WAIT = '1 day';
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

/**
 * Jobs that may have something to lose, in the order of their ids after $6, at most $7: those that have all of their
 * results; those whose items were needed, or kept as hits, when they were looked at before, and perhaps are not any more.
 */
export const CANDIDATES = `WITH ${RULES}
  SELECT j.job_id, j.requested, j.results_dropped_at IS NULL AS fresh
  FROM jobs j ${RULE_OF('j', 'r')}
  WHERE j.ended_at < greatest((SELECT cutoff FROM others), (SELECT max(cutoff) FROM rules)) AND j.job_id > $6 AND ${EXPIRED('j', 'r')}
    AND (j.results_dropped_at IS NULL OR j.results_needed > 0 OR j.results_top > ${KEEP('r')})
    AND (SELECT true FROM exports e WHERE e.job_id = j.job_id AND e.created_at > now() - interval '${EXPORT_WAIT}'
      AND e.state = 'running' LIMIT 1) IS NULL
  ORDER BY j.job_id LIMIT $7`;

/**
 * Of the months from $6[i] to below $7[i], the numbers (from 1) of those that can be swept: all of their jobs' time is over,
 * and some have results still, or poses that wait for it.
 */
export const SWEEPABLE = `WITH ${RULES}
  SELECT m.place::int AS place FROM unnest($6::uuid[], $7::uuid[]) WITH ORDINALITY AS m (low, high, place)
  WHERE NOT EXISTS (SELECT FROM jobs j ${RULE_OF('j', 'r')} WHERE j.job_id >= m.low AND j.job_id < m.high AND NOT ${EXPIRED('j', 'r')})
    AND EXISTS (SELECT FROM jobs j WHERE j.job_id >= m.low AND j.job_id < m.high AND (j.results_dropped_at IS NULL OR j.sweep_due))`;

const HIT = (item: string): string => `${item}.status IN ('scored', 'cached') AND ${item}.score IS NOT NULL`;
const LOWER = (task: string): string => `coalesce((${task}.plan ->> 'lowerIsBetter')::boolean, false)`;

/** How many hits of r's task are better than r, counted up to those that are kept. */
const BETTER = (comparison: string): string => `(SELECT count(*) FROM (
  SELECT FROM task_results b WHERE b.job_id = r.job_id AND b.task_id = r.task_id AND ${HIT('b')}
    AND (b.score, b.item_no) ${comparison} (r.score, r.item_no) LIMIT ${KEEP('rr')}) better)`;

/** Whether item r, answered from another, stays: its job's time is not over, or it is one of the hits that are kept. */
const STAYS = `NOT ${EXPIRED('rj', 'rr')} OR (r.score IS NOT NULL AND ${KEEP('rr')} >
  CASE WHEN ${LOWER('rk')} THEN ${BETTER('<')} ELSE ${BETTER('>')} END)`;

/**
 * Who needs item t beyond its own job: each is a reason to keep it with its poses. What else refers to items (an export
 * that is pinned to them, say) adds its line here, and takes `holdOffRetention` when it begins to.
 */
const NEEDED_BY = [
  `EXISTS (SELECT FROM result_cache c WHERE c.canonical_job_id = t.job_id AND c.canonical_task_id = t.task_id
    AND c.canonical_item_no = t.item_no AND c.status = 'pinned')`,
  `EXISTS (SELECT FROM task_results r JOIN jobs rj ON rj.job_id = r.job_id
      JOIN job_tasks rk ON rk.job_id = r.job_id AND rk.task_id = r.task_id ${RULE_OF('rj', 'rr')}
    WHERE r.status = 'cached' AND r.reused_from_job_id = t.job_id AND r.reused_from_task_id = t.task_id
      AND r.reused_from_item_no = t.item_no AND (${STAYS}))`,
  `EXISTS (SELECT FROM task_results x WHERE x.status = 'pending' AND x.extends_job_id = t.job_id AND x.extends_task_id = t.task_id
    AND x.extends_item_no = t.item_no)`,
];

const BEST = (direction: string): string => `
  SELECT score, item_no FROM task_results b WHERE b.job_id = c.job_id AND b.task_id = k.task_id AND ${HIT('b')}
  ORDER BY score ${direction}, item_no ${direction} OFFSET greatest(c.keep - 1, 0) LIMIT 1`;

/** The items of jobs $6: `doomed` those that go, and all of them with what keeps them. */
const DOOMED = `${RULES},
  chosen AS MATERIALIZED (SELECT j.job_id, ${KEEP('r')} AS keep FROM jobs j ${RULE_OF('j', 'r')} WHERE j.job_id = ANY ($6::uuid[])),
  lines AS MATERIALIZED (
    SELECT c.job_id, k.task_id, c.keep, ${LOWER('k')} AS lower, l.score, l.item_no
    FROM chosen c JOIN job_tasks k USING (job_id) LEFT JOIN LATERAL (
      (SELECT * FROM (${BEST('ASC')}) one WHERE ${LOWER('k')}) UNION ALL (SELECT * FROM (${BEST('DESC')}) one WHERE NOT ${LOWER('k')})) l ON true),
  ranked AS MATERIALIZED (
    SELECT t.job_id, t.task_id, t.item_no, t.status, pg_column_size(t) AS bytes, l.keep > 0 AND ${HIT('t')} AND (l.score IS NULL
        OR CASE WHEN l.lower THEN (t.score, t.item_no) <= (l.score, l.item_no) ELSE (t.score, t.item_no) >= (l.score, l.item_no) END) AS top
    FROM task_results t JOIN lines l USING (job_id, task_id)),
  judged AS MATERIALIZED (
    SELECT t.*, NOT t.top AND t.status = 'scored' AND (${NEEDED_BY.join(' OR ')}) AS needed FROM ranked t),
  doomed AS MATERIALIZED (SELECT job_id, task_id, item_no, bytes FROM judged WHERE NOT top AND NOT needed)`;

/** What a job loses. */
export interface Loss {
  job_id: string;
  keep: number;
  items: number;
  needed: number;
  poses: number;
  cache_entries: number;
  bytes: number;
}

const COUNTED = `
  SELECT c.job_id, c.keep, coalesce(i.items, 0)::int AS items, coalesce(i.needed, 0)::int AS needed,
    coalesce(p.poses, 0)::int AS poses, coalesce(e.entries, 0)::int AS cache_entries,
    (coalesce(i.bytes, 0) + coalesce(p.bytes, 0))::bigint AS bytes
  FROM chosen c
    LEFT JOIN (SELECT job_id, count(*) FILTER (WHERE NOT top AND NOT needed) AS items, count(*) FILTER (WHERE needed) AS needed,
        sum(bytes) FILTER (WHERE NOT top AND NOT needed) AS bytes FROM judged GROUP BY job_id) i USING (job_id)
    LEFT JOIN (SELECT job_id, count(*) AS poses, sum(pg_column_size(d)) AS bytes
        FROM docking_results d JOIN doomed USING (job_id, task_id, item_no) GROUP BY job_id) p USING (job_id)
    LEFT JOIN (SELECT n.job_id, count(*) AS entries FROM result_cache o JOIN doomed n ON o.canonical_job_id = n.job_id
        AND o.canonical_task_id = n.task_id AND o.canonical_item_no = n.item_no GROUP BY 1) e USING (job_id)
  ORDER BY c.job_id`;

/** Counts what jobs $6 lose. */
export const COUNT_LOSSES = `WITH ${DOOMED} ${COUNTED}`;

/**
 * Deletes what jobs $6 lose, and counts it. Entries of the cache go with their items; poses of jobs $7 are left to the
 * sweep of their partition.
 */
export const DROP_LOSSES = `WITH ${DOOMED},
  poses_gone AS (DELETE FROM docking_results d USING doomed n WHERE d.job_id = n.job_id AND d.task_id = n.task_id
    AND d.item_no = n.item_no AND n.job_id <> ALL ($7::uuid[])),
  items_gone AS (DELETE FROM task_results t USING doomed n WHERE t.job_id = n.job_id AND t.task_id = n.task_id AND t.item_no = n.item_no)
  ${COUNTED}`;

/** Gives up the structures of jobs $1 that no pose is in any more; what is kept keeps the objects it is in. */
export const DROP_STRUCTURES = `UPDATE stored_objects o SET state = 'dropped'
  WHERE o.purpose = 'poses' AND o.state = 'kept' AND o.owner_id = ANY ($1::uuid[])
    AND NOT EXISTS (SELECT FROM docking_results d WHERE d.job_id = o.owner_id AND d.pose_object = o.object_id)`;
