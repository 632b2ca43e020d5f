import { defineMigration } from '@mad/postgres';

/**
 * Searches that differ in the number of replicas only belong to one family: who asks for more of them is given those that
 * are known, and runs the others.
 */
export const Replicas = defineMigration(import.meta.url, {
  up: `
  ALTER TABLE results.result_cache
    ADD COLUMN family text,
    ADD COLUMN replicas integer,
    ADD CONSTRAINT result_cache_family_check CHECK (family ~ '^[0-9a-f]{64}$'),
    ADD CONSTRAINT result_cache_replicas_check CHECK (replicas >= 1 AND (replicas IS NULL) = (family IS NULL));
  CREATE INDEX idx_result_cache_family ON results.result_cache (family, task, replicas) WHERE family IS NOT NULL;
  COMMENT ON COLUMN results.result_cache.family IS 'Internal: sha256 of its input without the number of replicas; null where the task has none, or from before it was noted';
  COMMENT ON COLUMN results.result_cache.replicas IS 'Internal: how many replicas it holds';

  ALTER TABLE results.task_results
    ADD COLUMN extends_job_id uuid,
    ADD COLUMN extends_task_id text,
    ADD COLUMN extends_item_no integer,
    ADD CONSTRAINT task_results_extends_check CHECK (num_nonnulls(extends_job_id, extends_task_id, extends_item_no) IN (0, 3));
  CREATE INDEX idx_task_results_extends ON results.task_results (extends_job_id, extends_task_id, extends_item_no)
    WHERE status = 'pending' AND extends_job_id IS NOT NULL;
  COMMENT ON COLUMN results.task_results.extends_job_id IS 'Internal: the job of the item whose replicas are the first of this one; that may be gone once this one has ended';
  COMMENT ON COLUMN results.task_results.extends_task_id IS 'Internal: that item''s task';
  COMMENT ON COLUMN results.task_results.extends_item_no IS 'Internal: that item';`,

  down: `
  DROP INDEX results.idx_task_results_extends;
  ALTER TABLE results.task_results
    DROP CONSTRAINT task_results_extends_check,
    DROP COLUMN extends_item_no,
    DROP COLUMN extends_task_id,
    DROP COLUMN extends_job_id;
  DROP INDEX results.idx_result_cache_family;
  ALTER TABLE results.result_cache
    DROP CONSTRAINT result_cache_replicas_check,
    DROP CONSTRAINT result_cache_family_check,
    DROP COLUMN replicas,
    DROP COLUMN family;`,
});
