import { defineMigration, rlsSql } from '@mad/postgres';

/** Archives of tenants, how often they are made, and databases that are kept for a while after they were replaced. */
export const Backups = defineMigration(import.meta.url, {
  up: `
CREATE TABLE provisioner.backups (
  backup_id uuid NOT NULL DEFAULT gen_random_uuid(),
  org_id uuid NOT NULL,
  schema text NOT NULL,
  operation_id uuid NOT NULL,
  scheduled boolean NOT NULL DEFAULT false,
  object_key text NOT NULL DEFAULT '',
  completed_at timestamptz(3),
  snapshot_at timestamptz(3),
  generation bigint NOT NULL DEFAULT 0,
  schema_version text NOT NULL DEFAULT '',
  row_count bigint NOT NULL DEFAULT 0,
  raw_bytes bigint NOT NULL DEFAULT 0,
  size_bytes bigint NOT NULL DEFAULT 0,
  sha256 text NOT NULL DEFAULT '',
  tables jsonb NOT NULL DEFAULT '[]',
  verified_at timestamptz(3),
  verify_error text NOT NULL DEFAULT '',
  tried_at timestamptz(3),
  deleting_at timestamptz(3),
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT backups_pkey PRIMARY KEY (backup_id),
  CONSTRAINT backups_operation_id_fkey FOREIGN KEY (operation_id) REFERENCES provisioner.operations (operation_id),
  CONSTRAINT backups_schema_check CHECK (schema ~ '^[a-z][a-z0-9_]{0,30}$'),
  CONSTRAINT backups_completed_check CHECK (completed_at IS NULL
    OR (object_key <> '' AND snapshot_at IS NOT NULL AND sha256 ~ '^[0-9a-f]{64}$')),
  CONSTRAINT backups_counts_check CHECK (row_count >= 0 AND raw_bytes >= 0 AND size_bytes >= 0),
  CONSTRAINT backups_tables_check CHECK (jsonb_typeof(tables) = 'array')
);
COMMENT ON TABLE provisioner.backups IS 'Archives of tenants'' data in object storage. Owner: provisioner';
COMMENT ON COLUMN provisioner.backups.object_key IS 'Internal: written before the archive is begun, so that what a crash leaves is found';
CREATE INDEX idx_backups_org_id_schema ON provisioner.backups (org_id, schema, created_at);
CREATE INDEX idx_backups_created_at ON provisioner.backups (created_at, backup_id);

CREATE TABLE provisioner.backup_policies (
  org_id uuid NOT NULL,
  every_hours integer NOT NULL,
  keep integer NOT NULL,
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT backup_policies_pkey PRIMARY KEY (org_id),
  CONSTRAINT backup_policies_every_hours_check CHECK (every_hours BETWEEN 0 AND 8760),
  CONSTRAINT backup_policies_keep_check CHECK (keep BETWEEN 1 AND 1000)
);
COMMENT ON TABLE provisioner.backup_policies IS 'How often an organization''s tenants are backed up, and how many of these backups are kept. Owner: provisioner';

ALTER TABLE provisioner.cleanup_records ADD COLUMN keep_until timestamptz(3);
COMMENT ON COLUMN provisioner.cleanup_records.keep_until IS 'Internal: it is not removed before';

${['backups', 'backup_policies'].map((table) => rlsSql({ schema: 'provisioner', table, systemMay: true })).join('\n')}
REVOKE ALL ON provisioner.backups, provisioner.backup_policies FROM mad_provisioner;
`,
  down: `
ALTER TABLE provisioner.cleanup_records DROP COLUMN keep_until;
DROP TABLE provisioner.backup_policies;
DROP TABLE provisioner.backups;
`,
});
