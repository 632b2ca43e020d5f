import { defineMigration } from '@mad/postgres';

/** Task executions, work items and the cache that answers them. */
export const Work = defineMigration(import.meta.url, {
  up: `
  CREATE TABLE results.task_executions (
    task_execution_id uuid NOT NULL DEFAULT gen_random_uuid(),
    job_id uuid NOT NULL,
    task_id text NOT NULL,
    chunk_no integer NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    status results.execution_status NOT NULL DEFAULT 'queued',
    worker text NOT NULL DEFAULT '',
    queued_at timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    retries integer NOT NULL DEFAULT 0,
    error_class text NOT NULL DEFAULT '',
    error_message text NOT NULL DEFAULT '',
    logs_uri text,
    metrics jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT task_executions_pkey PRIMARY KEY (task_execution_id),
    CONSTRAINT task_executions_chunk_key UNIQUE (job_id, task_id, chunk_no),
    CONSTRAINT task_executions_task_fkey FOREIGN KEY (job_id, task_id) REFERENCES results.job_tasks (job_id, task_id) ON DELETE CASCADE,
    CONSTRAINT task_executions_chunk_no_check CHECK (chunk_no >= 1),
    CONSTRAINT task_executions_attempt_check CHECK (attempt >= 0),
    CONSTRAINT task_executions_retries_check CHECK (retries >= 0),
    CONSTRAINT task_executions_metrics_check CHECK (jsonb_typeof(metrics) = 'object'),
    CONSTRAINT task_executions_ended_check CHECK ((status IN ('finished', 'failed', 'cancelled')) = (ended_at IS NOT NULL)),
    CONSTRAINT task_executions_running_check CHECK (status <> 'running' OR (attempt >= 1 AND started_at IS NOT NULL))
  );
  CREATE INDEX idx_task_executions_job_status ON results.task_executions (job_id, status);
  COMMENT ON TABLE results.task_executions IS 'Internal: one chunk of one task of a job. attempt is the fence: an older lease has no say.';

  CREATE TABLE results.task_results (
    job_id uuid NOT NULL,
    task_id text NOT NULL,
    item_no integer NOT NULL,
    molecule_id uuid NOT NULL,
    smiles text NOT NULL,
    status results.work_status NOT NULL DEFAULT 'pending',
    input_signature text NOT NULL,
    task_execution_id uuid,
    follows_item_no integer,
    score double precision,
    result_data jsonb,
    confidence_score double precision,
    error_class text NOT NULL DEFAULT '',
    error_message text NOT NULL DEFAULT '',
    reused_from_job_id uuid,
    reused_from_task_id text,
    reused_from_item_no integer,
    service_name text NOT NULL DEFAULT '',
    schema_version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    CONSTRAINT task_results_pkey PRIMARY KEY (job_id, task_id, item_no),
    CONSTRAINT task_results_task_fkey FOREIGN KEY (job_id, task_id) REFERENCES results.job_tasks (job_id, task_id) ON DELETE CASCADE,
    CONSTRAINT task_results_execution_fkey FOREIGN KEY (task_execution_id) REFERENCES results.task_executions (task_execution_id),
    CONSTRAINT task_results_item_no_check CHECK (item_no >= 1),
    CONSTRAINT task_results_smiles_check CHECK (smiles ~ '^[\\x21-\\x7e]+$' AND char_length(smiles) <= 600),
    CONSTRAINT task_results_input_signature_check CHECK (input_signature ~ '^[0-9a-f]{64}$'),
    CONSTRAINT task_results_follows_check CHECK (follows_item_no >= 1 AND follows_item_no < item_no),
    CONSTRAINT task_results_runs_check CHECK (task_execution_id IS NULL OR follows_item_no IS NULL),
    CONSTRAINT task_results_pending_check CHECK (status <> 'pending' OR task_execution_id IS NOT NULL OR follows_item_no IS NOT NULL),
    CONSTRAINT task_results_ended_check CHECK ((status = 'pending') = (ended_at IS NULL)),
    CONSTRAINT task_results_score_check CHECK (score > '-Infinity' AND score < 'Infinity'),
    CONSTRAINT task_results_confidence_score_check CHECK (confidence_score BETWEEN 0 AND 1),
    CONSTRAINT task_results_result_data_check CHECK (jsonb_typeof(result_data) = 'object'),
    CONSTRAINT task_results_reused_check CHECK ((status = 'cached') = (num_nonnulls(reused_from_job_id, reused_from_task_id, reused_from_item_no) = 3)
      AND num_nonnulls(reused_from_job_id, reused_from_task_id, reused_from_item_no) IN (0, 3)),
    CONSTRAINT task_results_error_check CHECK (status <> 'failed' OR error_class <> '')
  );
  CREATE INDEX idx_results_job_created ON results.task_results (job_id, created_at);
  CREATE INDEX idx_task_results_execution ON results.task_results (task_execution_id) WHERE task_execution_id IS NOT NULL;
  CREATE INDEX idx_task_results_follows ON results.task_results (job_id, task_id, follows_item_no) WHERE follows_item_no IS NOT NULL;
  CREATE INDEX idx_task_results_hits ON results.task_results (job_id, task_id, score, item_no) WHERE status IN ('scored', 'cached') AND score IS NOT NULL;
  COMMENT ON TABLE results.task_results IS 'Confidential: one row per work item, pending until its execution finishes.';
  COMMENT ON COLUMN results.task_results.smiles IS 'Confidential: canonical SMILES, as hashed and run';
  COMMENT ON COLUMN results.task_results.confidence_score IS 'Internal: share of replicas that agree with the best; search convergence, not probability of binding';

  CREATE TABLE results.staged_results (
    task_execution_id uuid NOT NULL,
    item_no integer NOT NULL,
    status results.work_status NOT NULL,
    score double precision,
    result_data jsonb,
    confidence_score double precision,
    error_class text NOT NULL DEFAULT '',
    error_message text NOT NULL DEFAULT '',
    CONSTRAINT staged_results_pkey PRIMARY KEY (task_execution_id, item_no),
    CONSTRAINT staged_results_execution_fkey FOREIGN KEY (task_execution_id)
      REFERENCES results.task_executions (task_execution_id) ON DELETE CASCADE,
    CONSTRAINT staged_results_status_check CHECK (status IN ('scored', 'failed'))
  );
  COMMENT ON TABLE results.staged_results IS 'Confidential: what a running execution has said of its items. Becomes task_results when it finishes, goes when it is lost.';

  CREATE TABLE results.result_cache (
    cache_key text NOT NULL,
    task text NOT NULL,
    input_signature text NOT NULL,
    canonical_job_id uuid NOT NULL,
    canonical_task_id text NOT NULL,
    canonical_item_no integer NOT NULL,
    confidence_score double precision,
    artifact_map jsonb NOT NULL DEFAULT '{}',
    metrics_summary jsonb NOT NULL DEFAULT '{}',
    status text NOT NULL DEFAULT 'valid',
    hit_count bigint NOT NULL DEFAULT 0,
    last_used_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    CONSTRAINT result_cache_pkey PRIMARY KEY (cache_key),
    CONSTRAINT result_cache_item_fkey FOREIGN KEY (canonical_job_id, canonical_task_id, canonical_item_no)
      REFERENCES results.task_results (job_id, task_id, item_no) ON DELETE CASCADE,
    CONSTRAINT result_cache_cache_key_check CHECK (cache_key = task || ':' || input_signature),
    CONSTRAINT result_cache_input_signature_check CHECK (input_signature ~ '^[0-9a-f]{64}$'),
    CONSTRAINT result_cache_confidence_score_check CHECK (confidence_score BETWEEN 0 AND 1),
    CONSTRAINT result_cache_artifact_map_check CHECK (jsonb_typeof(artifact_map) = 'object'),
    CONSTRAINT result_cache_metrics_summary_check CHECK (jsonb_typeof(metrics_summary) = 'object'),
    CONSTRAINT result_cache_status_check CHECK (status IN ('valid', 'invalid', 'pinned')),
    CONSTRAINT result_cache_hit_count_check CHECK (hit_count >= 0)
  );
  CREATE INDEX idx_result_cache_canonical ON results.result_cache (canonical_job_id, canonical_task_id, canonical_item_no);
  CREATE INDEX idx_result_cache_input_signature ON results.result_cache (input_signature);
  CREATE INDEX idx_result_cache_expires_at ON results.result_cache (expires_at) WHERE expires_at IS NOT NULL;
  COMMENT ON TABLE results.result_cache IS 'Internal: which finished item answers an input of a task.';`,

  down: `
  DROP TABLE results.result_cache;
  DROP TABLE results.staged_results;
  DROP TABLE results.task_results;
  DROP TABLE results.task_executions;`,
});
