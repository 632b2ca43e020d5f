import { defineMigration, rlsSql } from '@mad/postgres';

/** Jobs' light records, and the queue of what may run now, shared fairly between organizations. */
export const Jobs = defineMigration(import.meta.url, {
  up: `
CREATE TABLE catalog.jobs_meta (
  job_id uuid NOT NULL DEFAULT gen_random_uuid(),
  org_id uuid NOT NULL,
  pipeline_id uuid NOT NULL,
  pipeline_version_id uuid NOT NULL,
  molecule_set_id uuid NOT NULL,
  name text NOT NULL DEFAULT '',
  status catalog.job_status NOT NULL DEFAULT 'pending',
  detail text NOT NULL DEFAULT '',
  priority smallint NOT NULL DEFAULT 0,
  labels jsonb NOT NULL DEFAULT '{}',
  parameters jsonb NOT NULL,
  plan jsonb NOT NULL,
  cache_policy text NOT NULL DEFAULT 'use',
  min_confidence double precision NOT NULL DEFAULT 0,
  input_count integer NOT NULL,
  planned_tasks integer NOT NULL,
  requested bigint NOT NULL DEFAULT 0,
  cached bigint NOT NULL DEFAULT 0,
  scored bigint NOT NULL DEFAULT 0,
  failed bigint NOT NULL DEFAULT 0,
  skipped bigint NOT NULL DEFAULT 0,
  cancelled bigint NOT NULL DEFAULT 0,
  pending bigint NOT NULL DEFAULT 0,
  event_seq bigint NOT NULL DEFAULT 0,
  created_by uuid NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  admitted_at timestamptz(3),
  materialized_at timestamptz(3),
  cancel_requested_at timestamptz(3),
  cancel_requested_by uuid,
  ended_at timestamptz(3),
  checked_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT jobs_meta_pkey PRIMARY KEY (job_id),
  CONSTRAINT jobs_meta_org_id_job_id_key UNIQUE (org_id, job_id),
  -- No foreign key to the pipeline: a public one is another organization's, whose erasure nothing here may block.
  CONSTRAINT jobs_meta_molecule_set_id_fkey
    FOREIGN KEY (org_id, molecule_set_id) REFERENCES catalog.molecule_sets (org_id, molecule_set_id),
  CONSTRAINT jobs_meta_name_check CHECK (char_length(name) <= 255),
  CONSTRAINT jobs_meta_detail_check CHECK (char_length(detail) <= 4000),
  CONSTRAINT jobs_meta_priority_check CHECK (priority BETWEEN -10 AND 10),
  CONSTRAINT jobs_meta_labels_check CHECK (jsonb_typeof(labels) = 'object'),
  CONSTRAINT jobs_meta_parameters_check CHECK (jsonb_typeof(parameters) = 'object'),
  CONSTRAINT jobs_meta_plan_check CHECK (jsonb_typeof(plan) = 'array'),
  CONSTRAINT jobs_meta_cache_policy_check CHECK (cache_policy IN ('use', 'refresh', 'bypass', 'only')),
  CONSTRAINT jobs_meta_min_confidence_check CHECK (min_confidence BETWEEN 0 AND 1),
  CONSTRAINT jobs_meta_input_count_check CHECK (input_count > 0),
  CONSTRAINT jobs_meta_planned_tasks_check CHECK (planned_tasks > 0),
  CONSTRAINT jobs_meta_counters_check CHECK (
    least(cached, scored, failed, skipped, cancelled, pending) >= 0
    AND requested = cached + scored + failed + skipped + cancelled + pending),
  CONSTRAINT jobs_meta_event_seq_check CHECK (event_seq >= 0),
  CONSTRAINT jobs_meta_materialized_at_check CHECK (materialized_at IS NULL OR admitted_at IS NOT NULL),
  CONSTRAINT jobs_meta_cancel_requested_by_check
    CHECK (cancel_requested_by IS NULL OR cancel_requested_at IS NOT NULL),
  CONSTRAINT jobs_meta_ended_at_check
    CHECK ((ended_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled')))
);
CREATE INDEX idx_jobs_org_status ON catalog.jobs_meta (org_id, status, created_at DESC);
CREATE INDEX idx_jobs_org_created ON catalog.jobs_meta (org_id, created_at DESC);
CREATE INDEX idx_jobs_meta_open ON catalog.jobs_meta (org_id, priority DESC, job_id)
  WHERE status IN ('pending', 'queued', 'running');
CREATE INDEX idx_jobs_meta_checked_at ON catalog.jobs_meta (checked_at) WHERE status IN ('pending', 'queued', 'running');
COMMENT ON TABLE catalog.jobs_meta IS 'What users asked for, in the light record that catalog keeps; the payload is in the tenant''s database. Owner: catalog';
COMMENT ON COLUMN catalog.jobs_meta.name IS 'Confidential: a name for people';
COMMENT ON COLUMN catalog.jobs_meta.detail IS 'Confidential: why it waits or failed';
COMMENT ON COLUMN catalog.jobs_meta.labels IS 'Confidential: free labels';
COMMENT ON COLUMN catalog.jobs_meta.parameters IS 'Confidential: the job''s parameters, defaults filled in';
COMMENT ON COLUMN catalog.jobs_meta.plan IS 'Confidential: the resolved tasks; nothing in them changes after submission';
COMMENT ON COLUMN catalog.jobs_meta.planned_tasks IS 'Internal: task executions it has at most, counted against the quota until it is materialized';
COMMENT ON COLUMN catalog.jobs_meta.event_seq IS 'Internal: the number of the last event settled; a progress that is not above it is old';
COMMENT ON COLUMN catalog.jobs_meta.created_by IS 'PII: the user who submitted it';
COMMENT ON COLUMN catalog.jobs_meta.admitted_at IS 'Internal: when it got one of the organization''s places';
COMMENT ON COLUMN catalog.jobs_meta.materialized_at IS 'Internal: when its tenant was known to hold it';
COMMENT ON COLUMN catalog.jobs_meta.cancel_requested_by IS 'PII: the user who cancelled it';
COMMENT ON COLUMN catalog.jobs_meta.checked_at IS 'Internal: when results was last heard of it';

-- Whoever changes an organization's part of the queue holds this row: it is the lock, and the first one taken.
CREATE TABLE catalog.org_queue (
  org_id uuid NOT NULL,
  queued integer NOT NULL DEFAULT 0,
  running integer NOT NULL DEFAULT 0,
  max_running integer NOT NULL,
  max_concurrent_jobs integer NOT NULL,
  weight double precision NOT NULL DEFAULT 1,
  vtime double precision NOT NULL DEFAULT 0,
  CONSTRAINT org_queue_pkey PRIMARY KEY (org_id),
  CONSTRAINT org_queue_queued_check CHECK (queued >= 0),
  CONSTRAINT org_queue_running_check CHECK (running >= 0),
  CONSTRAINT org_queue_max_running_check CHECK (max_running >= 0),
  CONSTRAINT org_queue_max_concurrent_jobs_check CHECK (max_concurrent_jobs >= 0),
  CONSTRAINT org_queue_weight_check CHECK (weight > 0),
  CONSTRAINT org_queue_vtime_check CHECK (vtime >= 0 AND vtime < 'Infinity')
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE catalog.org_queue IS 'Internal: each organization''s turn and room in the queue. Owner: catalog';
COMMENT ON COLUMN catalog.org_queue.queued IS 'Internal: tasks ready for a worker';
COMMENT ON COLUMN catalog.org_queue.running IS 'Internal: tasks leased to a worker';
COMMENT ON COLUMN catalog.org_queue.max_running IS 'Internal: hard cap of running; 0 while the organization is suspended';
COMMENT ON COLUMN catalog.org_queue.vtime IS 'Internal: tasks served over weight; the least is served next';

CREATE TABLE catalog.org_queue_depth (
  org_id uuid NOT NULL,
  engine text NOT NULL,
  cores integer NOT NULL,
  memory_mb integer NOT NULL,
  queued integer NOT NULL,
  CONSTRAINT org_queue_depth_pkey PRIMARY KEY (org_id, engine, cores, memory_mb),
  CONSTRAINT org_queue_depth_org_id_fkey FOREIGN KEY (org_id) REFERENCES catalog.org_queue (org_id),
  CONSTRAINT org_queue_depth_queued_check CHECK (queued >= 0)
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE catalog.org_queue_depth IS 'Internal: tasks ready by what a worker must have for them, so that nobody is visited in vain. Owner: catalog';
COMMENT ON COLUMN catalog.org_queue_depth.memory_mb IS 'Internal: MiB';

CREATE TABLE catalog.task_queue (
  task_execution_id uuid NOT NULL DEFAULT gen_random_uuid(),
  org_id uuid NOT NULL,
  job_id uuid NOT NULL,
  engine text NOT NULL,
  cores integer NOT NULL,
  memory_mb integer NOT NULL,
  priority smallint NOT NULL DEFAULT 0,
  state text NOT NULL DEFAULT 'ready',
  attempt integer NOT NULL DEFAULT 0,
  losses integer NOT NULL DEFAULT 0,
  worker text,
  lease_expires_at timestamptz(3),
  not_before timestamptz(3),
  queued_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT task_queue_pkey PRIMARY KEY (task_execution_id),
  CONSTRAINT task_queue_job_id_fkey FOREIGN KEY (org_id, job_id) REFERENCES catalog.jobs_meta (org_id, job_id),
  CONSTRAINT task_queue_org_id_fkey FOREIGN KEY (org_id) REFERENCES catalog.org_queue (org_id),
  CONSTRAINT task_queue_engine_check CHECK (char_length(engine) BETWEEN 1 AND 127),
  CONSTRAINT task_queue_cores_check CHECK (cores > 0),
  CONSTRAINT task_queue_memory_mb_check CHECK (memory_mb > 0),
  CONSTRAINT task_queue_priority_check CHECK (priority BETWEEN -10 AND 10),
  CONSTRAINT task_queue_state_check CHECK (state IN ('ready', 'leased', 'delayed', 'failing')),
  CONSTRAINT task_queue_attempt_check CHECK (attempt >= 0),
  CONSTRAINT task_queue_losses_check CHECK (losses BETWEEN 0 AND attempt),
  CONSTRAINT task_queue_lease_check
    CHECK ((state = 'leased') = (worker IS NOT NULL AND lease_expires_at IS NOT NULL)),
  CONSTRAINT task_queue_not_before_check CHECK ((state = 'delayed') = (not_before IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX idx_task_queue_ready ON catalog.task_queue (org_id, engine, cores, memory_mb, priority DESC, task_execution_id)
  WHERE state = 'ready';
CREATE INDEX idx_task_queue_job_id ON catalog.task_queue (job_id);
CREATE INDEX idx_task_queue_due ON catalog.task_queue (coalesce(lease_expires_at, not_before))
  WHERE state IN ('leased', 'delayed');
COMMENT ON TABLE catalog.task_queue IS 'Internal: one row per task execution that may run, deleted when it is settled. Owner: catalog';
COMMENT ON COLUMN catalog.task_queue.memory_mb IS 'Internal: MiB';
COMMENT ON COLUMN catalog.task_queue.state IS 'Internal: ready, leased, delayed (given back until not_before) or failing (its workers were lost too often)';
COMMENT ON COLUMN catalog.task_queue.attempt IS 'Internal: grows with every lease; the fence';
COMMENT ON COLUMN catalog.task_queue.losses IS 'Internal: leases that ran out';

${rlsSql({ schema: 'catalog', table: 'jobs_meta', systemMay: true })}
${rlsSql({ schema: 'catalog', table: 'org_queue', systemMay: true })}
${rlsSql({ schema: 'catalog', table: 'org_queue_depth', systemMay: true })}
${rlsSql({ schema: 'catalog', table: 'task_queue', systemMay: true })}
`,
  down: `
DROP TABLE catalog.task_queue;
DROP TABLE catalog.org_queue_depth;
DROP TABLE catalog.org_queue;
DROP TABLE catalog.jobs_meta;
`,
});
