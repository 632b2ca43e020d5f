import { defineMigration } from '@mad/postgres';

/**
 * What is kept up while results arrive: histograms and counts of failures; and the indexes that find failed items by
 * their error and an item by its molecule. Jobs that are there already are counted once, here.
 */
export const ScoreStatistics = defineMigration(import.meta.url, {
  up: `
  CREATE INDEX idx_task_results_failed ON results.task_results (job_id, task_id, error_class, item_no) WHERE status = 'failed';
  CREATE INDEX idx_task_results_molecule ON results.task_results (job_id, task_id, molecule_id, item_no) INCLUDE (score)
    WHERE status IN ('scored', 'cached') AND score IS NOT NULL;

  ALTER TABLE results.job_tasks ADD COLUMN bin_width double precision,
    ADD CONSTRAINT job_tasks_bin_width_check CHECK (bin_width > 0 AND bin_width < 'Infinity');
  UPDATE results.job_tasks SET bin_width =
    CASE plan ->> 'scoreUnits' WHEN 'tanimoto' THEN 0.01 ELSE 0.1 END WHERE coalesce(plan ->> 'scoreUnits', '') <> '';
  COMMENT ON COLUMN results.job_tasks.bin_width IS 'Internal: of its histogram, in its score''s unit; null when it gives no score';

  CREATE TABLE results.score_histograms (
    job_id uuid NOT NULL,
    task_id text NOT NULL,
    bin bigint NOT NULL,
    items bigint NOT NULL,
    CONSTRAINT score_histograms_pkey PRIMARY KEY (job_id, task_id, bin),
    CONSTRAINT score_histograms_task_fkey FOREIGN KEY (job_id, task_id) REFERENCES results.job_tasks (job_id, task_id) ON DELETE CASCADE,
    CONSTRAINT score_histograms_items_check CHECK (items >= 1)
  );
  COMMENT ON TABLE results.score_histograms IS 'Confidential: how many scored and cached items of a task lie between bin and bin + 1 of its bin widths. Moves in the transaction that ends the items.';

  CREATE TABLE results.failure_counts (
    job_id uuid NOT NULL,
    task_id text NOT NULL,
    error_class text NOT NULL,
    items bigint NOT NULL,
    CONSTRAINT failure_counts_pkey PRIMARY KEY (job_id, task_id, error_class),
    CONSTRAINT failure_counts_task_fkey FOREIGN KEY (job_id, task_id) REFERENCES results.job_tasks (job_id, task_id) ON DELETE CASCADE,
    CONSTRAINT failure_counts_items_check CHECK (items >= 1)
  );
  COMMENT ON TABLE results.failure_counts IS 'Internal: how many items of a task failed with each kind of error. Moves in the transaction that ends the items.';

  CREATE FUNCTION results.score_bin(score double precision, bin_width double precision) RETURNS bigint
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
  $function$ SELECT floor(round(score * 1e6) / round(bin_width * 1e6))::bigint $function$;
  REVOKE ALL ON FUNCTION results.score_bin(double precision, double precision) FROM PUBLIC;
  GRANT EXECUTE ON FUNCTION results.score_bin(double precision, double precision) TO mad_results_app;
  COMMENT ON FUNCTION results.score_bin(double precision, double precision) IS 'The bin of a score. In whole millionths: 0.29 lies in the bin that begins at 0.29, which 0.29 / 0.01 misses.';

  INSERT INTO results.score_histograms (job_id, task_id, bin, items)
    SELECT job_id, task_id, results.score_bin(t.score, k.bin_width), count(*)
    FROM results.task_results t JOIN results.job_tasks k USING (job_id, task_id)
    WHERE t.status IN ('scored', 'cached') AND t.score IS NOT NULL AND k.bin_width IS NOT NULL GROUP BY 1, 2, 3;
  INSERT INTO results.failure_counts (job_id, task_id, error_class, items)
    SELECT job_id, task_id, error_class, count(*) FROM results.task_results WHERE status = 'failed' GROUP BY 1, 2, 3;`,

  down: `
  DROP FUNCTION results.score_bin(double precision, double precision);
  DROP TABLE results.failure_counts;
  DROP TABLE results.score_histograms;
  ALTER TABLE results.job_tasks DROP CONSTRAINT job_tasks_bin_width_check, DROP COLUMN bin_width;
  DROP INDEX results.idx_task_results_molecule;
  DROP INDEX results.idx_task_results_failed;`,
});
