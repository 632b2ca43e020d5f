import { defineMigration } from '@mad/postgres';

/**
 * Where retention stands with a job that it drops slice by slice. And the sweep of a month finds what it keeps by the items
 * that are left, however many poses go.
 */
export const RetentionSlices = defineMigration(import.meta.url, {
  up: `
  ALTER TABLE results.jobs
    ADD COLUMN drop_progress jsonb,
    ADD CONSTRAINT jobs_drop_progress_check CHECK (drop_progress IS NULL OR (jsonb_typeof(drop_progress) = 'object' AND results_dropped_at IS NOT NULL));
  CREATE INDEX idx_jobs_drop_progress ON results.jobs (job_id) WHERE drop_progress IS NOT NULL;
  COMMENT ON COLUMN results.jobs.drop_progress IS 'Internal: where retention stands while it drops the job''s results slice by slice; null otherwise';
  COMMENT ON COLUMN results.jobs.sweep_due IS 'Internal: its poses and events show nowhere any more, and go with the partitions of its month or row by row';
${sweepPartitions(`SELECT d.* FROM results.task_results t CROSS JOIN LATERAL (
          SELECT p.* FROM results.%I p WHERE p.job_id = t.job_id AND p.task_id = t.task_id AND p.item_no = t.item_no OFFSET 0) d
        WHERE t.job_id >= %L AND t.job_id < %L AND t.status = ''scored''', poses || '_kept', poses, low, high`)}`,

  down: `
${sweepPartitions(`SELECT d.* FROM results.%I d
        JOIN results.task_results t USING (job_id, task_id, item_no) WHERE t.status = ''scored''', poses || '_kept', poses`)}
  COMMENT ON COLUMN results.jobs.sweep_due IS 'Internal: its poses go with the partition of its month, which is not done yet';
  DROP INDEX results.idx_jobs_drop_progress;
  ALTER TABLE results.jobs
    DROP CONSTRAINT jobs_drop_progress_check,
    DROP COLUMN drop_progress;`,
});

/** The owner's function; `kept` is the query of the poses that stay, and the arguments of format() with it. */
function sweepPartitions(kept: string): string {
  return `
  CREATE OR REPLACE FUNCTION results.sweep_partitions(month date) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '3s' AS $function$
  DECLARE
    first_day timestamptz := date_trunc('month', month::timestamp) AT TIME ZONE 'UTC';
    next_month timestamptz := (date_trunc('month', month::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
    low uuid := rpad(lpad(to_hex((extract(epoch FROM first_day) * 1000)::bigint), 12, '0'), 32, '0')::uuid;
    high uuid := rpad(lpad(to_hex((extract(epoch FROM next_month) * 1000)::bigint), 12, '0'), 32, '0')::uuid;
    poses text := 'docking_results_' || to_char(month, 'YYYY_MM');
    events text := 'job_events_' || to_char(month, 'YYYY_MM');
    kept bigint;
    swept integer := 0;
  BEGIN
    IF EXISTS (SELECT FROM results.jobs WHERE job_id >= low AND job_id < high AND results_dropped_at IS NULL) THEN
      RAISE EXCEPTION 'jobs of % have results still', month USING ERRCODE = 'object_in_use';
    END IF;
    IF to_regclass('results.' || quote_ident(poses)) IS NOT NULL THEN
      EXECUTE format('CREATE TABLE results.%I AS ${kept});
      GET DIAGNOSTICS kept = ROW_COUNT;
      EXECUTE format('DROP TABLE results.%I', poses);
      IF kept > 0 THEN
        PERFORM results.ensure_partitions(month);
        EXECUTE format('INSERT INTO results.%I SELECT * FROM results.%I', poses, poses || '_kept');
      END IF;
      EXECUTE format('DROP TABLE results.%I', poses || '_kept');
      swept := swept + 1;
    END IF;
    IF to_regclass('results.' || quote_ident(events)) IS NOT NULL THEN
      EXECUTE format('DROP TABLE results.%I', events);
      swept := swept + 1;
    END IF;
    RETURN swept;
  END $function$;`;
}
