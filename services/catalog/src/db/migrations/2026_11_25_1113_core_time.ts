import { defineMigration, REPORTING } from '@mad/postgres';

/** What jobs took of the workers' cores, as their tenants tell it; shown to the reporting views with who submitted what. */
export const CoreTime = defineMigration(import.meta.url, {
  up: `
ALTER TABLE catalog.jobs_meta
  ADD COLUMN core_ms bigint NOT NULL DEFAULT 0,
  ADD COLUMN saved_core_ms bigint NOT NULL DEFAULT 0,
  ADD CONSTRAINT jobs_meta_core_ms_check CHECK (core_ms >= 0),
  ADD CONSTRAINT jobs_meta_saved_core_ms_check CHECK (saved_core_ms >= 0);
COMMENT ON COLUMN catalog.jobs_meta.core_ms IS 'Internal: core milliseconds of its executions, last settled';
COMMENT ON COLUMN catalog.jobs_meta.saved_core_ms IS 'Internal: core milliseconds that earlier results saved it, last settled';
GRANT SELECT (created_by, input_count, core_ms, saved_core_ms) ON catalog.jobs_meta TO ${REPORTING};
`,
  down: `
REVOKE SELECT (created_by, input_count, core_ms, saved_core_ms) ON catalog.jobs_meta FROM ${REPORTING};
ALTER TABLE catalog.jobs_meta
  DROP CONSTRAINT jobs_meta_saved_core_ms_check,
  DROP CONSTRAINT jobs_meta_core_ms_check,
  DROP COLUMN saved_core_ms,
  DROP COLUMN core_ms;
`,
});
