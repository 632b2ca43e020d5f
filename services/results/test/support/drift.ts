import { rows, type Organization } from './world.ts';

/** Derived rows that are not what a recomputation from the items gives: histograms and counts of failures, of all jobs. */
export async function driftOf(org: Organization): Promise<unknown[]> {
  return rows(
    org,
    `SELECT coalesce(kept.what, counted.what) AS what, kept.items AS kept, counted.items AS counted
      FROM (
        SELECT 'bin ' || job_id || ' ' || task_id || ' ' || bin AS what, items FROM score_histograms
        UNION ALL SELECT 'failed ' || job_id || ' ' || task_id || ' ' || error_class, items FROM failure_counts) kept
      FULL JOIN (
        SELECT 'bin ' || job_id || ' ' || task_id || ' ' || floor(round((score * 1e6)::numeric) / round((bin_width * 1e6)::numeric)) AS what,
          count(*) AS items
        FROM task_results JOIN job_tasks USING (job_id, task_id)
        WHERE status IN ('scored', 'cached') AND score IS NOT NULL GROUP BY 1
        UNION ALL SELECT 'failed ' || job_id || ' ' || task_id || ' ' || error_class, count(*) FROM task_results
        WHERE status = 'failed' GROUP BY 1) counted ON kept.what = counted.what
      WHERE kept.items IS DISTINCT FROM counted.items ORDER BY 1`,
  );
}
