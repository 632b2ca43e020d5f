import { defineMigration } from '@mad/postgres';

const counters = (table: string): string => `
    requested integer NOT NULL DEFAULT 0,
    cached integer NOT NULL DEFAULT 0,
    scored integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    skipped integer NOT NULL DEFAULT 0,
    cancelled integer NOT NULL DEFAULT 0,
    pending integer NOT NULL DEFAULT 0,
    CONSTRAINT ${table}_counters_check CHECK (requested = cached + scored + failed + skipped + cancelled + pending),
    CONSTRAINT ${table}_counters_not_negative_check CHECK (least(cached, scored, failed, skipped, cancelled, pending) >= 0)`;

/**
 * Jobs, their tasks and what they read. The schema and the default rights in it are the provisioner's template's; these
 * run as the schema's owner.
 */
export const Jobs = defineMigration(import.meta.url, {
  up: `
  CREATE TYPE results.job_status AS ENUM ('pending', 'queued', 'running', 'completed', 'failed', 'cancelled');
  CREATE TYPE results.cache_policy AS ENUM ('use', 'refresh', 'bypass', 'only');
  CREATE TYPE results.work_status AS ENUM ('pending', 'cached', 'scored', 'failed', 'skipped', 'cancelled');
  CREATE TYPE results.execution_status AS ENUM ('blocked', 'queued', 'running', 'finished', 'failed', 'cancelled');

  CREATE TABLE results.jobs (
    job_id uuid NOT NULL DEFAULT gen_random_uuid(),
    pipeline_version_id uuid NOT NULL,
    status results.job_status NOT NULL DEFAULT 'queued',
    input_signature text NOT NULL,
    params jsonb NOT NULL DEFAULT '{}',
    cache_policy results.cache_policy NOT NULL DEFAULT 'use',
    min_confidence double precision NOT NULL DEFAULT 0,
    timings jsonb NOT NULL DEFAULT '{}',
    metrics jsonb NOT NULL DEFAULT '{}',
    error text NOT NULL DEFAULT '',
    event_seq bigint NOT NULL DEFAULT 0,
    created_by text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    ended_at timestamptz,
    ${counters('jobs')},
    CONSTRAINT jobs_pkey PRIMARY KEY (job_id),
    CONSTRAINT jobs_input_signature_check CHECK (input_signature ~ '^[0-9a-f]{64}$'),
    CONSTRAINT jobs_params_check CHECK (jsonb_typeof(params) = 'object'),
    CONSTRAINT jobs_timings_check CHECK (jsonb_typeof(timings) = 'object'),
    CONSTRAINT jobs_metrics_check CHECK (jsonb_typeof(metrics) = 'object'),
    CONSTRAINT jobs_min_confidence_check CHECK (min_confidence BETWEEN 0 AND 1),
    CONSTRAINT jobs_event_seq_check CHECK (event_seq >= 0),
    CONSTRAINT jobs_created_by_check CHECK (char_length(created_by) <= 36),
    CONSTRAINT jobs_ended_check CHECK ((status IN ('completed', 'failed', 'cancelled')) = (ended_at IS NOT NULL)),
    CONSTRAINT jobs_pending_check CHECK ((ended_at IS NOT NULL) = (pending = 0))
  );
  CREATE INDEX idx_jobs_status_created_at ON results.jobs (status, created_at DESC);
  CREATE INDEX idx_jobs_input_signature ON results.jobs (input_signature);
  CREATE INDEX idx_jobs_params ON results.jobs USING gin (params);
  COMMENT ON TABLE results.jobs IS 'Confidential: what the organization computes. Counters are absolute and move only in the transaction that ends items; event_seq numbers job_events.';
  COMMENT ON COLUMN results.jobs.params IS 'Confidential: parameters as the user sees them';
  COMMENT ON COLUMN results.jobs.created_by IS 'PII: the user who asked; no name, no foreign key';
  COMMENT ON COLUMN results.jobs.timings IS 'Internal: milliseconds waited and run, once ended';

  CREATE TABLE results.job_tasks (
    job_id uuid NOT NULL,
    task_id text NOT NULL,
    position integer NOT NULL,
    plan jsonb NOT NULL,
    ${counters('job_tasks')},
    CONSTRAINT job_tasks_pkey PRIMARY KEY (job_id, task_id),
    CONSTRAINT job_tasks_position_key UNIQUE (job_id, position),
    CONSTRAINT job_tasks_job_fkey FOREIGN KEY (job_id) REFERENCES results.jobs (job_id) ON DELETE CASCADE,
    CONSTRAINT job_tasks_task_id_check CHECK (char_length(task_id) BETWEEN 1 AND 63),
    CONSTRAINT job_tasks_position_check CHECK (position >= 1),
    CONSTRAINT job_tasks_plan_check CHECK (jsonb_typeof(plan) = 'object')
  );
  COMMENT ON TABLE results.job_tasks IS 'Internal: a job''s tasks, upstream first, each as resolved when it was submitted (mad.results.v1.TaskPlan as JSON), with its counters.';

  CREATE TABLE results.job_inputs (
    job_id uuid NOT NULL,
    key text NOT NULL,
    uri text NOT NULL,
    content_type text,
    size_bytes bigint,
    checksum text NOT NULL,
    CONSTRAINT job_inputs_pkey PRIMARY KEY (job_id, key),
    CONSTRAINT job_inputs_job_fkey FOREIGN KEY (job_id) REFERENCES results.jobs (job_id) ON DELETE CASCADE,
    CONSTRAINT job_inputs_key_check CHECK (char_length(key) BETWEEN 1 AND 255),
    CONSTRAINT job_inputs_size_bytes_check CHECK (size_bytes >= 0),
    CONSTRAINT job_inputs_checksum_check CHECK (checksum ~ '^[0-9a-f]{64}$')
  );
  COMMENT ON TABLE results.job_inputs IS 'Confidential: artifacts a job reads, key = task and parameter; its molecules are in task_results.';`,

  down: `
  DROP TABLE results.job_inputs;
  DROP TABLE results.job_tasks;
  DROP TABLE results.jobs;
  DROP TYPE results.execution_status;
  DROP TYPE results.work_status;
  DROP TYPE results.cache_policy;
  DROP TYPE results.job_status;`,
});
