import { defineMigration } from '@mad/postgres';

/**
 * Docking poses and job events: the two tables that grow without end, in partitions by the month of the job (the first
 * 48 bits of a UUIDv7 are its time in ms). The service's logins own nothing, so the owner's function makes them.
 */
export const PosesAndEvents = defineMigration(import.meta.url, {
  up: `
  CREATE TABLE results.docking_results (
    job_id uuid NOT NULL,
    task_id text NOT NULL,
    item_no integer NOT NULL,
    replicate integer NOT NULL,
    pose_rank integer NOT NULL,
    molecule_id uuid NOT NULL,
    score double precision NOT NULL,
    raw_score double precision NOT NULL,
    rmsd_lb double precision NOT NULL,
    rmsd_ub double precision NOT NULL,
    task_execution_id uuid NOT NULL,
    chunk_no integer NOT NULL,
    pose_uri text,
    metadata jsonb,
    CONSTRAINT docking_results_pkey PRIMARY KEY (job_id, task_id, item_no, replicate, pose_rank),
    CONSTRAINT docking_results_replicate_check CHECK (replicate >= 1),
    CONSTRAINT docking_results_pose_rank_check CHECK (pose_rank >= 1),
    CONSTRAINT docking_results_score_check CHECK (score BETWEEN -50 AND 50),
    CONSTRAINT docking_results_raw_score_check CHECK (raw_score > '-Infinity' AND raw_score < 'Infinity'),
    CONSTRAINT docking_results_rmsd_check CHECK (rmsd_lb >= 0 AND rmsd_lb < 'Infinity' AND rmsd_ub >= 0 AND rmsd_ub < 'Infinity'),
    CONSTRAINT docking_results_metadata_check CHECK (jsonb_typeof(metadata) = 'object')
  ) PARTITION BY RANGE (job_id);
  CREATE INDEX idx_docking_results_job_score ON results.docking_results (job_id, score);
  COMMENT ON TABLE results.docking_results IS 'Confidential: docked poses. score is the corrected affinity, raw_score what the engine printed, kcal/mol; RMSD in ångström. Poses of pending items show nowhere.';

  CREATE TABLE results.job_events (
    job_id uuid NOT NULL,
    seq_no bigint NOT NULL,
    ts timestamptz NOT NULL DEFAULT now(),
    event text NOT NULL,
    detail text NOT NULL DEFAULT '',
    metadata jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT job_events_pkey PRIMARY KEY (job_id, seq_no),
    CONSTRAINT job_events_seq_no_check CHECK (seq_no >= 1),
    CONSTRAINT job_events_event_check CHECK (char_length(event) BETWEEN 1 AND 63),
    CONSTRAINT job_events_metadata_check CHECK (jsonb_typeof(metadata) = 'object')
  ) PARTITION BY RANGE (job_id);
  COMMENT ON TABLE results.job_events IS 'Internal: what happened to a job, numbered from its locked counter without gaps.';

  CREATE FUNCTION results.ensure_partitions(month date) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
  DECLARE
    first_day timestamptz := date_trunc('month', month::timestamp) AT TIME ZONE 'UTC';
    next_month timestamptz := (date_trunc('month', month::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
    suffix text := to_char(month, 'YYYY_MM');
    parent text;
    partition text;
  BEGIN
    IF first_day > now() + interval '2 months' THEN
      RAISE EXCEPTION 'partitions are not made so far ahead: %', month USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH parent IN ARRAY ARRAY['docking_results', 'job_events'] LOOP
      partition := parent || '_' || suffix;
      CONTINUE WHEN EXISTS (SELECT FROM pg_class WHERE relname = partition AND relnamespace = 'results'::regnamespace);
      -- Only one makes it. Those who waited look again, with a new snapshot: a name look-up could answer from before.
      PERFORM pg_advisory_xact_lock(hashtext('mad.ensure_partitions'));
      CONTINUE WHEN EXISTS (SELECT FROM pg_class WHERE relname = partition AND relnamespace = 'results'::regnamespace);
      -- Made beside and attached: CREATE … PARTITION OF would lock out every reader of the parent.
      EXECUTE format('CREATE TABLE results.%I (LIKE results.%I INCLUDING ALL)', partition, parent);
      EXECUTE format('ALTER TABLE results.%I ATTACH PARTITION results.%I FOR VALUES FROM (%L) TO (%L)', parent, partition,
        rpad(lpad(to_hex((extract(epoch FROM first_day) * 1000)::bigint), 12, '0'), 32, '0')::uuid,
        rpad(lpad(to_hex((extract(epoch FROM next_month) * 1000)::bigint), 12, '0'), 32, '0')::uuid);
    END LOOP;
  END $function$;
  REVOKE ALL ON FUNCTION results.ensure_partitions(date) FROM PUBLIC;
  GRANT EXECUTE ON FUNCTION results.ensure_partitions(date) TO mad_results_app;
  COMMENT ON FUNCTION results.ensure_partitions(date) IS 'Makes the partitions of one month of jobs, at most two months ahead. A repeat changes nothing.';`,

  down: `
  DROP FUNCTION results.ensure_partitions(date);
  DROP TABLE results.job_events;
  DROP TABLE results.docking_results;`,
});
