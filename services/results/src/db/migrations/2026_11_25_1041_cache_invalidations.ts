import { defineMigration } from '@mad/postgres';

/** What was invalidated, by which rule, and exactly which results: undoing gives back the same ones. */
export const CacheInvalidations = defineMigration(import.meta.url, {
  up: `
  CREATE TABLE results.cache_invalidations (
    invalidation_id uuid NOT NULL,
    predicate jsonb NOT NULL,
    reason text NOT NULL,
    entries integer NOT NULL,
    jobs integer NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    undone_by text NOT NULL DEFAULT '',
    undone_at timestamptz,
    restored integer,
    CONSTRAINT cache_invalidations_pkey PRIMARY KEY (invalidation_id),
    CONSTRAINT cache_invalidations_predicate_check CHECK (jsonb_typeof(predicate) = 'object'),
    CONSTRAINT cache_invalidations_reason_check CHECK (char_length(reason) BETWEEN 1 AND 1000),
    CONSTRAINT cache_invalidations_entries_check CHECK (entries >= 0),
    CONSTRAINT cache_invalidations_jobs_check CHECK (jobs >= 0),
    CONSTRAINT cache_invalidations_undone_check CHECK (num_nulls(undone_at, restored) IN (0, 2)),
    CONSTRAINT cache_invalidations_restored_check CHECK (restored >= 0)
  );
  COMMENT ON TABLE results.cache_invalidations IS 'Internal: what was taken out of the cache by a rule, and what was given back.';
  COMMENT ON COLUMN results.cache_invalidations.reason IS 'Confidential: why, in the words of who did it';
  COMMENT ON COLUMN results.cache_invalidations.created_by IS 'PII: the user who did it';
  COMMENT ON COLUMN results.cache_invalidations.undone_by IS 'PII: the user who undid it';

  CREATE TABLE results.cache_invalidation_entries (
    invalidation_id uuid NOT NULL,
    cache_key text NOT NULL,
    version integer NOT NULL,
    status text NOT NULL,
    CONSTRAINT cache_invalidation_entries_pkey PRIMARY KEY (invalidation_id, cache_key),
    CONSTRAINT cache_invalidation_entries_invalidation_fkey FOREIGN KEY (invalidation_id)
      REFERENCES results.cache_invalidations (invalidation_id) ON DELETE CASCADE,
    CONSTRAINT cache_invalidation_entries_version_check CHECK (version >= 1),
    CONSTRAINT cache_invalidation_entries_status_check CHECK (status IN ('valid', 'pinned'))
  );
  COMMENT ON TABLE results.cache_invalidation_entries IS 'Internal: the results an invalidation took out, each with its status before. Names entries that may be gone.';
  CREATE INDEX idx_cache_invalidations_created_at ON results.cache_invalidations (created_at, invalidation_id);
  CREATE INDEX idx_result_cache_task ON results.result_cache (task, created_at);
  CREATE INDEX idx_result_cache_engine ON results.result_cache (engine COLLATE "C", created_at);
  CREATE INDEX idx_task_results_reused ON results.task_results (reused_from_job_id, reused_from_task_id, reused_from_item_no)
    WHERE status = 'cached';`,

  down: `
  DROP INDEX results.idx_task_results_reused;
  DROP INDEX results.idx_result_cache_engine;
  DROP INDEX results.idx_result_cache_task;
  DROP TABLE results.cache_invalidation_entries;
  DROP TABLE results.cache_invalidations;`,
});
