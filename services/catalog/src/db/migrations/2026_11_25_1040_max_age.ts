import { defineMigration } from '@mad/postgres';

/** How old an earlier result may be that answers one of the job's molecules. */
export const MaxAge = defineMigration(import.meta.url, {
  up: `
ALTER TABLE catalog.jobs_meta ADD COLUMN max_age_s integer NOT NULL DEFAULT 0,
  ADD CONSTRAINT jobs_meta_max_age_s_check CHECK (max_age_s >= 0);
COMMENT ON COLUMN catalog.jobs_meta.max_age_s IS 'Internal: earlier results older than this are not taken, seconds; 0 takes any';
`,
  down: `ALTER TABLE catalog.jobs_meta DROP CONSTRAINT jobs_meta_max_age_s_check, DROP COLUMN max_age_s;`,
});
