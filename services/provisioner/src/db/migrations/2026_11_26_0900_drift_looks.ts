import { defineMigration } from '@mad/postgres';

/** What the last look for drift found, so that health can show it without a look. */
export const DriftLooks = defineMigration(import.meta.url, {
  up: `
ALTER TABLE provisioner.tenants
  ADD COLUMN drift_looked_at timestamptz(3),
  ADD COLUMN drift_count integer,
  ADD CONSTRAINT tenants_drift_check CHECK (drift_count >= 0 AND drift_looked_at IS NOT NULL OR drift_count IS NULL);
COMMENT ON COLUMN provisioner.tenants.drift_looked_at IS 'When its database was last compared with what its version and its own indexes make; null before the first look';
COMMENT ON COLUMN provisioner.tenants.drift_count IS 'How many objects differed then; null where it could not be looked at';
CREATE INDEX idx_tenants_drift ON provisioner.tenants (server_id, (coalesce(drift_looked_at, ready_at)));
`,
  down: `
DROP INDEX provisioner.idx_tenants_drift;
ALTER TABLE provisioner.tenants DROP CONSTRAINT tenants_drift_check, DROP COLUMN drift_count, DROP COLUMN drift_looked_at;`,
});
