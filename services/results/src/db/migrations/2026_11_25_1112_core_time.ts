import { defineMigration } from '@mad/postgres';

/** What jobs took of the workers' cores, and what earlier results saved them. */
export const CoreTime = defineMigration(import.meta.url, {
  up: `
  ALTER TABLE results.task_executions
    ADD COLUMN core_ms bigint NOT NULL DEFAULT 0,
    ADD COLUMN items integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT task_executions_core_ms_check CHECK (core_ms >= 0),
    ADD CONSTRAINT task_executions_items_check CHECK (items >= 0);
  COMMENT ON COLUMN results.task_executions.core_ms IS 'Internal: milliseconds from its start to its worker''s word that it ended, times the cores it had';
  COMMENT ON COLUMN results.task_executions.items IS 'Internal: work items it ended';
  ALTER TABLE results.jobs
    ADD COLUMN core_ms bigint NOT NULL DEFAULT 0,
    ADD COLUMN saved_core_ms bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT jobs_core_ms_check CHECK (core_ms >= 0),
    ADD CONSTRAINT jobs_saved_core_ms_check CHECK (saved_core_ms >= 0);
  COMMENT ON COLUMN results.jobs.core_ms IS 'Internal: core milliseconds of its executions';
  COMMENT ON COLUMN results.jobs.saved_core_ms IS 'Internal: core milliseconds that computing what earlier results answered had taken';`,

  down: `
  ALTER TABLE results.jobs
    DROP CONSTRAINT jobs_saved_core_ms_check,
    DROP CONSTRAINT jobs_core_ms_check,
    DROP COLUMN saved_core_ms,
    DROP COLUMN core_ms;
  ALTER TABLE results.task_executions
    DROP CONSTRAINT task_executions_items_check,
    DROP CONSTRAINT task_executions_core_ms_check,
    DROP COLUMN items,
    DROP COLUMN core_ms;`,
});
