import { defineMigration } from '@mad/postgres';

/** What an operation's end means for the next try, and what a rollout found when it looked at a tenant's database. */
export const CausesAndLooks = defineMigration(import.meta.url, {
  up: `
ALTER TABLE provisioner.operations
  ADD COLUMN cause text NOT NULL DEFAULT '',
  ADD CONSTRAINT operations_cause_check CHECK (cause ~ '^([a-z][a-z_]{0,62})?$');
COMMENT ON COLUMN provisioner.operations.cause IS 'Internal: why it ended before it was done, where the next try depends on it: away, held, gives_way';
ALTER TABLE provisioner.migration_runs ADD COLUMN drift text;
COMMENT ON COLUMN provisioner.migration_runs.drift IS 'Internal: how its database differed from what its version makes when the rollout looked at it; null before that look';
-- Those under way were looked at, as far as it was known.
UPDATE provisioner.migration_runs SET drift = '' WHERE state <> 'pending' OR from_version <> '';
`,
  down: `
ALTER TABLE provisioner.migration_runs DROP COLUMN drift;
ALTER TABLE provisioner.operations DROP CONSTRAINT operations_cause_check, DROP COLUMN cause;`,
});
