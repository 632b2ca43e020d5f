import { defineMigration, rlsSql } from '@mad/postgres';

/** What tenants' databases should consist of, indexes of their own, and migrations on their way through the fleet. */
export const Rollouts = defineMigration(import.meta.url, {
  up: `
CREATE TABLE provisioner.schema_references (
  server_id uuid NOT NULL,
  schema text NOT NULL,
  digest text NOT NULL,
  server_version integer NOT NULL,
  objects jsonb NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT schema_references_pkey PRIMARY KEY (server_id, schema, digest, server_version),
  CONSTRAINT schema_references_server_id_fkey FOREIGN KEY (server_id) REFERENCES provisioner.database_servers (server_id),
  CONSTRAINT schema_references_schema_check CHECK (schema ~ '^[a-z][a-z0-9_]{0,30}$'),
  CONSTRAINT schema_references_digest_check CHECK (digest ~ '^[0-9a-f]{64}$'),
  CONSTRAINT schema_references_objects_check CHECK (jsonb_typeof(objects) = 'array')
);
COMMENT ON TABLE provisioner.schema_references IS 'What a list of migrations makes on a server, read from a database made by it and by nothing else. Owner: provisioner';

CREATE TABLE provisioner.tenant_indexes (
  org_id uuid NOT NULL,
  schema text NOT NULL,
  name text NOT NULL,
  table_name text NOT NULL,
  columns text[] NOT NULL,
  method text NOT NULL,
  state text NOT NULL DEFAULT 'building',
  definition text NOT NULL DEFAULT '',
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT tenant_indexes_pkey PRIMARY KEY (org_id, schema, name),
  CONSTRAINT tenant_indexes_tenant_fkey FOREIGN KEY (org_id, schema) REFERENCES provisioner.tenants (org_id, schema),
  CONSTRAINT tenant_indexes_name_check CHECK (name ~ '^own_[a-z0-9_]{1,40}$'),
  CONSTRAINT tenant_indexes_table_name_check CHECK (table_name ~ '^[a-z][a-z0-9_]{0,62}$'),
  CONSTRAINT tenant_indexes_columns_check CHECK (cardinality(columns) BETWEEN 1 AND 8),
  CONSTRAINT tenant_indexes_method_check CHECK (method IN ('btree', 'hash', 'gin', 'gist', 'brin')),
  CONSTRAINT tenant_indexes_state_check CHECK (state IN ('building', 'ready', 'dropping')),
  CONSTRAINT tenant_indexes_definition_check CHECK (state <> 'ready' OR definition <> '')
);
COMMENT ON TABLE provisioner.tenant_indexes IS 'Indexes an organization has beside those of its version. Owner: provisioner';

CREATE TABLE provisioner.migration_rollouts (
  rollout_id uuid NOT NULL,
  schema text NOT NULL,
  version text NOT NULL,
  state text NOT NULL DEFAULT 'running',
  direction text NOT NULL DEFAULT 'up',
  checked boolean NOT NULL DEFAULT false,
  verified boolean NOT NULL DEFAULT false,
  wave integer NOT NULL DEFAULT 0,
  rules jsonb NOT NULL,
  reason text NOT NULL DEFAULT '',
  driver uuid,
  driver_until timestamptz(3),
  actor_kind text NOT NULL,
  user_id uuid,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  ended_at timestamptz(3),
  CONSTRAINT migration_rollouts_pkey PRIMARY KEY (rollout_id),
  CONSTRAINT migration_rollouts_schema_check CHECK (schema ~ '^[a-z][a-z0-9_]{0,30}$'),
  CONSTRAINT migration_rollouts_state_check CHECK (state IN ('running', 'paused', 'halted', 'waiting', 'succeeded',
    'aborted', 'rolled_back')),
  CONSTRAINT migration_rollouts_direction_check CHECK (direction IN ('up', 'down')),
  CONSTRAINT migration_rollouts_wave_check CHECK (wave >= 0),
  CONSTRAINT migration_rollouts_rules_check CHECK (jsonb_typeof(rules) = 'object'),
  CONSTRAINT migration_rollouts_driver_check CHECK ((driver IS NULL) = (driver_until IS NULL)),
  CONSTRAINT migration_rollouts_actor_kind_check CHECK (actor_kind IN ('user', 'platform', 'service')),
  CONSTRAINT migration_rollouts_ended_check CHECK ((state IN ('succeeded', 'aborted', 'rolled_back')) = (ended_at IS NOT NULL))
);
COMMENT ON TABLE provisioner.migration_rollouts IS 'A version of a tenant schema on its way through the fleet. Owner: provisioner';
COMMENT ON COLUMN provisioner.migration_rollouts.checked IS 'Internal: whether every tenant was looked at for drift';
COMMENT ON COLUMN provisioner.migration_rollouts.verified IS 'Internal: whether somebody reported the staging tenants well';
COMMENT ON COLUMN provisioner.migration_rollouts.driver IS 'Internal: the process that drives it, until driver_until';
COMMENT ON COLUMN provisioner.migration_rollouts.user_id IS 'PII: the person who asked for it, where one did';
CREATE UNIQUE INDEX idx_migration_rollouts_under_way ON provisioner.migration_rollouts (schema) WHERE ended_at IS NULL;
CREATE INDEX idx_migration_rollouts_created_at ON provisioner.migration_rollouts (created_at, rollout_id);

CREATE TABLE provisioner.migration_runs (
  rollout_id uuid NOT NULL,
  org_id uuid NOT NULL,
  schema text NOT NULL,
  wave integer NOT NULL,
  state text NOT NULL DEFAULT 'pending',
  from_version text NOT NULL DEFAULT '',
  operation_id uuid,
  attempts integer NOT NULL DEFAULT 0,
  not_before timestamptz(3) NOT NULL DEFAULT now(),
  error text NOT NULL DEFAULT '',
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT migration_runs_pkey PRIMARY KEY (rollout_id, org_id),
  CONSTRAINT migration_runs_rollout_id_fkey FOREIGN KEY (rollout_id) REFERENCES provisioner.migration_rollouts (rollout_id),
  CONSTRAINT migration_runs_operation_id_fkey FOREIGN KEY (operation_id) REFERENCES provisioner.operations (operation_id),
  CONSTRAINT migration_runs_tenant_fkey FOREIGN KEY (org_id, schema) REFERENCES provisioner.tenants (org_id, schema),
  CONSTRAINT migration_runs_state_check CHECK (state IN ('pending', 'running', 'succeeded', 'failed', 'queued',
    'rolled_back', 'skipped')),
  CONSTRAINT migration_runs_wave_check CHECK (wave >= 0),
  CONSTRAINT migration_runs_attempts_check CHECK (attempts >= 0),
  CONSTRAINT migration_runs_running_check CHECK (state <> 'running' OR operation_id IS NOT NULL)
);
COMMENT ON TABLE provisioner.migration_runs IS 'Where each tenant of a rollout stands. Owner: provisioner';
COMMENT ON COLUMN provisioner.migration_runs.wave IS 'Internal: 0 the tenants labelled staging, 1 the canaries, then the rest';
COMMENT ON COLUMN provisioner.migration_runs.not_before IS 'Internal: when it may be tried again';
CREATE INDEX idx_migration_runs_wave ON provisioner.migration_runs (rollout_id, wave, org_id);
CREATE INDEX idx_migration_runs_org_id ON provisioner.migration_runs (org_id, schema);

${['tenant_indexes', 'migration_runs'].map((table) => rlsSql({ schema: 'provisioner', table, systemMay: true })).join('\n')}
REVOKE ALL ON provisioner.schema_references, provisioner.tenant_indexes, provisioner.migration_rollouts,
  provisioner.migration_runs FROM mad_provisioner;
`,
  down: `
DROP TABLE provisioner.migration_runs;
DROP TABLE provisioner.migration_rollouts;
DROP TABLE provisioner.tenant_indexes;
DROP TABLE provisioner.schema_references;
`,
});
