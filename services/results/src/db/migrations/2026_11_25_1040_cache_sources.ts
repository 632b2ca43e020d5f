import { defineMigration } from '@mad/postgres';

/**
 * A cache that can say why: what a job asked for and why each item missed, what an entry was computed from and how many
 * poses its source must still have, and the sources an entry had before.
 */
export const CacheSources = defineMigration(import.meta.url, {
  up: `
  CREATE TYPE results.cache_miss AS ENUM ('never_computed', 'invalidated', 'expired', 'too_old', 'low_confidence', 'output_missing');
  ALTER TABLE results.jobs ADD COLUMN max_age_s integer,
    ADD CONSTRAINT jobs_max_age_s_check CHECK (max_age_s >= 1);
  COMMENT ON COLUMN results.jobs.max_age_s IS 'Internal: earlier results older than this are not taken, seconds; null takes any';
  ALTER TABLE results.task_results ADD COLUMN cache_miss results.cache_miss;
  COMMENT ON COLUMN results.task_results.cache_miss IS 'Internal: why no earlier result answered it; null when one did, or none was looked for';

  ALTER TABLE results.result_cache
    ADD COLUMN version integer NOT NULL DEFAULT 1,
    ADD COLUMN engine text NOT NULL DEFAULT '',
    ADD COLUMN smiles text,
    ADD CONSTRAINT result_cache_version_check CHECK (version >= 1);
  COMMENT ON COLUMN results.result_cache.version IS 'Internal: how many sources it has had; the former ones are in result_cache_history';
  COMMENT ON COLUMN results.result_cache.engine IS 'Internal: the engine, with its version, that computed it';
  COMMENT ON COLUMN results.result_cache.smiles IS 'Confidential: the molecule, canonical, to find what it was computed with before';
  UPDATE results.result_cache c SET engine = t.service_name, smiles = t.smiles,
      artifact_map = c.artifact_map || jsonb_build_object('poses', (SELECT count(*) FROM results.docking_results d
        WHERE d.job_id = t.job_id AND d.task_id = t.task_id AND d.item_no = t.item_no))
    FROM results.task_results t
    WHERE t.job_id = c.canonical_job_id AND t.task_id = c.canonical_task_id AND t.item_no = c.canonical_item_no;
  CREATE INDEX idx_result_cache_created_at ON results.result_cache (created_at, cache_key);
  CREATE INDEX idx_result_cache_status ON results.result_cache (status, created_at, cache_key) WHERE status <> 'valid';
  CREATE INDEX idx_result_cache_smiles ON results.result_cache (smiles, task, created_at);

  CREATE TABLE results.result_cache_history (
    cache_key text NOT NULL,
    version integer NOT NULL,
    canonical_job_id uuid NOT NULL,
    canonical_task_id text NOT NULL,
    canonical_item_no integer NOT NULL,
    confidence_score double precision,
    metrics_summary jsonb NOT NULL,
    status text NOT NULL,
    hit_count bigint NOT NULL,
    last_used_at timestamptz,
    created_at timestamptz NOT NULL,
    replaced_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    CONSTRAINT result_cache_history_pkey PRIMARY KEY (cache_key, version),
    CONSTRAINT result_cache_history_entry_fkey FOREIGN KEY (cache_key) REFERENCES results.result_cache (cache_key) ON DELETE CASCADE,
    CONSTRAINT result_cache_history_version_check CHECK (version >= 1),
    CONSTRAINT result_cache_history_metrics_summary_check CHECK (jsonb_typeof(metrics_summary) = 'object'),
    CONSTRAINT result_cache_history_status_check CHECK (status IN ('valid', 'invalid')),
    CONSTRAINT result_cache_history_reason_check CHECK (reason IN ('better', 'refresh', 'expired', 'invalidated', 'too_old', 'output_missing'))
  );
  COMMENT ON TABLE results.result_cache_history IS 'Internal: the sources an entry of the cache had before, and why each was replaced. Names jobs that may be gone.';`,

  down: `
  DROP TABLE results.result_cache_history;
  DROP INDEX results.idx_result_cache_smiles;
  DROP INDEX results.idx_result_cache_status;
  DROP INDEX results.idx_result_cache_created_at;
  ALTER TABLE results.result_cache DROP CONSTRAINT result_cache_version_check, DROP COLUMN smiles, DROP COLUMN engine, DROP COLUMN version;
  ALTER TABLE results.task_results DROP COLUMN cache_miss;
  ALTER TABLE results.jobs DROP CONSTRAINT jobs_max_age_s_check, DROP COLUMN max_age_s;
  DROP TYPE results.cache_miss;`,
});
