import { defineMigration } from '@mad/postgres';

/** All that an invalidation answered, so that a repeat of its request is answered the same. */
export const InvalidationCounts = defineMigration(import.meta.url, {
  up: `
  ALTER TABLE results.cache_invalidations
    ADD COLUMN items integer NOT NULL DEFAULT 0,
    ADD COLUMN exports integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT cache_invalidations_items_check CHECK (items >= 0),
    ADD CONSTRAINT cache_invalidations_exports_check CHECK (exports >= 0);
  COMMENT ON COLUMN results.cache_invalidations.items IS 'Internal: items in other jobs that its results had answered; 0 where it was not noted yet';
  COMMENT ON COLUMN results.cache_invalidations.exports IS 'Internal: exports of the tasks its results were of or had answered; 0 where it was not noted yet';`,

  down: `
  ALTER TABLE results.cache_invalidations
    DROP CONSTRAINT cache_invalidations_exports_check,
    DROP CONSTRAINT cache_invalidations_items_check,
    DROP COLUMN exports,
    DROP COLUMN items;`,
});
