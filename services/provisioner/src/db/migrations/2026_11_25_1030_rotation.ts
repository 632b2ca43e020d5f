import { defineMigration } from '@mad/postgres';

/** Logins change their passwords: when each was set, and when what is left of the one before is to end. */
export const Rotation = defineMigration(import.meta.url, {
  up: `
ALTER TABLE provisioner.tenant_credentials
  ADD COLUMN set_at timestamptz(3) NOT NULL DEFAULT now(),
  ADD COLUMN retire_at timestamptz(3),
  ADD COLUMN sessions_before timestamptz,
  ADD CONSTRAINT tenant_credentials_retire_check CHECK (sessions_before IS NULL OR retire_at IS NOT NULL);
UPDATE provisioner.tenant_credentials SET set_at = created_at;
COMMENT ON COLUMN provisioner.tenant_credentials.set_at IS 'Internal: when the login got the password it has';
COMMENT ON COLUMN provisioner.tenant_credentials.retire_at IS 'Internal: when its old sessions end and, unless it is in use again, its password; null when nothing is left to end';
COMMENT ON COLUMN provisioner.tenant_credentials.sessions_before IS 'Internal: only sessions older than this end, by the clock of the tenant''s server; null for all';
CREATE INDEX idx_tenant_credentials_set_at ON provisioner.tenant_credentials (set_at) WHERE active;
CREATE INDEX idx_tenant_credentials_retire_at ON provisioner.tenant_credentials (retire_at) WHERE retire_at IS NOT NULL;
CREATE INDEX idx_operations_kind_started_at ON provisioner.operations (kind, started_at);
`,
  down: `
DROP INDEX provisioner.idx_operations_kind_started_at;
ALTER TABLE provisioner.tenant_credentials DROP COLUMN sessions_before, DROP COLUMN retire_at, DROP COLUMN set_at;
`,
});
