import { defineMigration } from '@mad/postgres';

/**
 * How long results are kept, what was deleted because of it, and the owner's function that makes a month's partitions as
 * small as what is left in them: the service's logins own nothing.
 */
export const Retention = defineMigration(import.meta.url, {
  up: `
  ALTER TABLE results.jobs
    ADD COLUMN pipeline_id uuid,
    ADD COLUMN results_dropped_at timestamptz,
    ADD COLUMN results_top integer,
    ADD COLUMN results_needed integer NOT NULL DEFAULT 0,
    ADD COLUMN sweep_due boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT jobs_results_dropped_check CHECK (results_dropped_at IS NULL OR ended_at IS NOT NULL),
    ADD CONSTRAINT jobs_results_top_check CHECK (results_top >= 0 AND (results_top IS NULL) = (results_dropped_at IS NULL)),
    ADD CONSTRAINT jobs_results_needed_check CHECK (results_needed >= 0 AND (results_needed = 0 OR results_dropped_at IS NOT NULL)),
    ADD CONSTRAINT jobs_sweep_due_check CHECK (NOT sweep_due OR results_dropped_at IS NOT NULL);
  CREATE INDEX idx_jobs_ended_at ON results.jobs (ended_at, job_id) WHERE ended_at IS NOT NULL;
  CREATE INDEX idx_jobs_sweep_due ON results.jobs (job_id) WHERE sweep_due;
  COMMENT ON COLUMN results.jobs.pipeline_id IS 'Internal: retention may be set by pipeline; null for jobs made before it was noted';
  COMMENT ON COLUMN results.jobs.results_dropped_at IS 'Internal: when retention dropped its items, poses and events, but for what is kept';
  COMMENT ON COLUMN results.jobs.results_top IS 'Internal: how many of the best hits of each task were kept then';
  COMMENT ON COLUMN results.jobs.results_needed IS 'Internal: further items that were kept because a pin, or an answer of another job, needs them';
  COMMENT ON COLUMN results.jobs.sweep_due IS 'Internal: its poses go with the partition of its month, which is not done yet';

  CREATE TABLE results.retention_policies (
    policy_id uuid NOT NULL,
    version integer NOT NULL,
    rules jsonb NOT NULL,
    set_by text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT retention_policies_pkey PRIMARY KEY (policy_id),
    CONSTRAINT retention_policies_version_key UNIQUE (version),
    CONSTRAINT retention_policies_version_check CHECK (version >= 1),
    CONSTRAINT retention_policies_rules_check CHECK (jsonb_typeof(rules) = 'array')
  );
  COMMENT ON TABLE results.retention_policies IS 'Internal: how long results are kept. The newest version is in force; policy_id is the request that set it.';
  COMMENT ON COLUMN results.retention_policies.set_by IS 'PII: the user who set it';

  CREATE TABLE results.retention_runs (
    run_id uuid NOT NULL,
    policy_version integer NOT NULL,
    started_by text NOT NULL DEFAULT '',
    started_at timestamptz(3) NOT NULL DEFAULT now(),
    ended_at timestamptz,
    jobs bigint NOT NULL DEFAULT 0,
    items bigint NOT NULL DEFAULT 0,
    poses bigint NOT NULL DEFAULT 0,
    events bigint NOT NULL DEFAULT 0,
    cache_entries bigint NOT NULL DEFAULT 0,
    partitions bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    CONSTRAINT retention_runs_pkey PRIMARY KEY (run_id),
    CONSTRAINT retention_runs_policy_fkey FOREIGN KEY (policy_version) REFERENCES results.retention_policies (version),
    CONSTRAINT retention_runs_counts_check CHECK (least(jobs, items, poses, events, cache_entries, partitions, bytes) >= 0)
  );
  CREATE INDEX idx_retention_runs_started_at ON results.retention_runs (started_at, run_id);
  CREATE INDEX idx_retention_runs_open ON results.retention_runs (started_at) WHERE ended_at IS NULL;
  COMMENT ON TABLE results.retention_runs IS 'Internal: what was deleted, when and by which policy. Moves in the transactions that delete.';
  COMMENT ON COLUMN results.retention_runs.started_by IS 'PII: the user who applied the policy; empty when the clock did';

  CREATE FUNCTION results.sweep_partitions(month date) RETURNS integer
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
      EXECUTE format('CREATE TABLE results.%I AS SELECT d.* FROM results.%I d
        JOIN results.task_results t USING (job_id, task_id, item_no) WHERE t.status = ''scored''', poses || '_kept', poses);
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
  END $function$;
  REVOKE ALL ON FUNCTION results.sweep_partitions(date) FROM PUBLIC;
  GRANT EXECUTE ON FUNCTION results.sweep_partitions(date) TO mad_results_app;
  COMMENT ON FUNCTION results.sweep_partitions(date) IS 'Drops a month''s partitions, whose jobs must all have dropped their results; poses of items that were kept are put into a new one. Answers how many were dropped.';`,

  down: `
  DROP FUNCTION results.sweep_partitions(date);
  DROP TABLE results.retention_runs;
  DROP TABLE results.retention_policies;
  DROP INDEX results.idx_jobs_sweep_due;
  DROP INDEX results.idx_jobs_ended_at;
  ALTER TABLE results.jobs
    DROP CONSTRAINT jobs_sweep_due_check,
    DROP CONSTRAINT jobs_results_needed_check,
    DROP CONSTRAINT jobs_results_top_check,
    DROP CONSTRAINT jobs_results_dropped_check,
    DROP COLUMN sweep_due,
    DROP COLUMN results_needed,
    DROP COLUMN results_top,
    DROP COLUMN results_dropped_at,
    DROP COLUMN pipeline_id;`,
});
