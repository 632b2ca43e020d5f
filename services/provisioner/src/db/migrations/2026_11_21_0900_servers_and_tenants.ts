import { appendOnlySql, defineMigration, rlsSql } from '@mad/postgres';

/** The servers, the organizations' databases on them, the keys to both, and the log of their changes. */
export const ServersAndTenants = defineMigration(import.meta.url, {
  up: `
CREATE TABLE provisioner.database_servers (
  server_id uuid NOT NULL DEFAULT gen_random_uuid(),
  name text NOT NULL,
  host text NOT NULL,
  port integer NOT NULL,
  sslmode text NOT NULL DEFAULT '',
  region text NOT NULL,
  connection_budget integer NOT NULL,
  max_tenants integer NOT NULL,
  draining boolean NOT NULL DEFAULT false,
  provisioner_secret bytea NOT NULL,
  migrator_secret bytea NOT NULL,
  master_key_version integer NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT database_servers_pkey PRIMARY KEY (server_id),
  CONSTRAINT database_servers_name_key UNIQUE (name),
  CONSTRAINT database_servers_name_check CHECK (name ~ '^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$'),
  CONSTRAINT database_servers_host_check CHECK (char_length(host) BETWEEN 1 AND 255),
  CONSTRAINT database_servers_port_check CHECK (port BETWEEN 1 AND 65535),
  CONSTRAINT database_servers_sslmode_check CHECK (sslmode IN ('', 'verify-full', 'no-verify', 'disable')),
  CONSTRAINT database_servers_region_check CHECK (region ~ '^[a-z][a-z0-9-]{0,62}$'),
  CONSTRAINT database_servers_connection_budget_check CHECK (connection_budget > 0),
  CONSTRAINT database_servers_max_tenants_check CHECK (max_tenants > 0),
  CONSTRAINT database_servers_master_key_version_check CHECK (master_key_version > 0)
);
COMMENT ON TABLE provisioner.database_servers IS 'Postgres servers that hold tenant databases. Owner: provisioner';
COMMENT ON COLUMN provisioner.database_servers.connection_budget IS 'Internal: connections all nodes together may hold';
COMMENT ON COLUMN provisioner.database_servers.provisioner_secret IS 'Confidential: password of mad_provisioner_admin, sealed under the master key';
COMMENT ON COLUMN provisioner.database_servers.migrator_secret IS 'Confidential: password of mad_migrator, sealed under the master key';

CREATE TABLE provisioner.data_keys (
  org_id uuid NOT NULL,
  version integer NOT NULL,
  wrapped_key bytea NOT NULL,
  master_key_version integer NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT data_keys_pkey PRIMARY KEY (org_id, version),
  CONSTRAINT data_keys_version_check CHECK (version > 0),
  CONSTRAINT data_keys_wrapped_key_check CHECK (octet_length(wrapped_key) = 60),
  CONSTRAINT data_keys_master_key_version_check CHECK (master_key_version > 0)
);
COMMENT ON TABLE provisioner.data_keys IS 'The key of each organization''s secrets. Destroyed when it is erased. Owner: provisioner';
COMMENT ON COLUMN provisioner.data_keys.wrapped_key IS 'Confidential: AES-256 key, sealed under the master key of that version';

CREATE TABLE provisioner.operations (
  operation_id uuid NOT NULL DEFAULT gen_random_uuid(),
  org_id uuid NOT NULL,
  schema text NOT NULL,
  kind text NOT NULL,
  state text NOT NULL DEFAULT 'running',
  error text NOT NULL DEFAULT '',
  started_at timestamptz(3) NOT NULL DEFAULT now(),
  ended_at timestamptz(3),
  CONSTRAINT operations_pkey PRIMARY KEY (operation_id),
  CONSTRAINT operations_kind_check CHECK (kind IN ('provision', 'suspend', 'resume', 'migrate')),
  CONSTRAINT operations_state_check CHECK (state IN ('running', 'succeeded', 'failed')),
  CONSTRAINT operations_ended_check CHECK ((state = 'running') = (ended_at IS NULL))
);
COMMENT ON TABLE provisioner.operations IS 'Everything that was undertaken with a tenant, and how it ended. Owner: provisioner';
COMMENT ON COLUMN provisioner.operations.error IS 'Internal: why it failed';
CREATE INDEX idx_operations_org_id_schema ON provisioner.operations (org_id, schema, started_at);

CREATE TABLE provisioner.tenants (
  org_id uuid NOT NULL,
  schema text NOT NULL,
  server_id uuid NOT NULL,
  database_name text NOT NULL,
  region text NOT NULL,
  state text NOT NULL DEFAULT 'requested',
  operation_id uuid NOT NULL,
  step text,
  step_owner uuid,
  step_lease_until timestamptz(3),
  generation bigint NOT NULL DEFAULT 1,
  schema_version text NOT NULL DEFAULT '',
  fingerprint text NOT NULL DEFAULT '',
  labels jsonb NOT NULL DEFAULT '{}',
  last_error text NOT NULL DEFAULT '',
  ready_at timestamptz(3),
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT tenants_pkey PRIMARY KEY (org_id, schema),
  CONSTRAINT tenants_database_name_key UNIQUE (server_id, database_name),
  CONSTRAINT tenants_server_id_fkey FOREIGN KEY (server_id) REFERENCES provisioner.database_servers (server_id),
  CONSTRAINT tenants_operation_id_fkey FOREIGN KEY (operation_id) REFERENCES provisioner.operations (operation_id),
  CONSTRAINT tenants_schema_check CHECK (schema ~ '^[a-z][a-z0-9_]{0,30}$'),
  CONSTRAINT tenants_database_name_check CHECK (database_name ~ '^mad_[a-z0-9_]{1,59}$'),
  CONSTRAINT tenants_region_check CHECK (region ~ '^[a-z][a-z0-9-]{0,62}$'),
  CONSTRAINT tenants_state_check CHECK (state IN ('requested', 'creating', 'ready', 'suspended', 'read_only', 'moving',
    'restoring', 'erasing', 'erased', 'failed')),
  CONSTRAINT tenants_step_check CHECK (step IN ('create_login_roles', 'create_database', 'grant_connect', 'verify',
    'close_connections', 'open_connections', 'migrate')),
  CONSTRAINT tenants_lease_check CHECK ((step_owner IS NULL) = (step_lease_until IS NULL)),
  CONSTRAINT tenants_ready_check CHECK (state NOT IN ('ready', 'suspended', 'read_only', 'moving') OR ready_at IS NOT NULL),
  CONSTRAINT tenants_generation_check CHECK (generation > 0),
  CONSTRAINT tenants_labels_check CHECK (jsonb_typeof(labels) = 'object')
);
COMMENT ON TABLE provisioner.tenants IS 'One organization''s database for one tenant schema. Owner: provisioner';
COMMENT ON COLUMN provisioner.tenants.step IS 'Internal: what is being done or must be done next; null when nothing is';
COMMENT ON COLUMN provisioner.tenants.step_owner IS 'Internal: the run that may do it, until step_lease_until';
COMMENT ON COLUMN provisioner.tenants.generation IS 'Internal: the fence; grows whenever the route changes';
COMMENT ON COLUMN provisioner.tenants.last_error IS 'Internal: why the last step failed';
CREATE INDEX idx_tenants_state ON provisioner.tenants (state, created_at);
CREATE INDEX idx_tenants_step ON provisioner.tenants (step_lease_until) WHERE step IS NOT NULL;

CREATE TABLE provisioner.tenant_credentials (
  org_id uuid NOT NULL,
  schema text NOT NULL,
  slot text NOT NULL,
  role_name text NOT NULL,
  secret bytea NOT NULL,
  data_key_version integer NOT NULL,
  active boolean NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT tenant_credentials_pkey PRIMARY KEY (org_id, schema, slot),
  CONSTRAINT tenant_credentials_tenant_fkey FOREIGN KEY (org_id, schema) REFERENCES provisioner.tenants (org_id, schema),
  CONSTRAINT tenant_credentials_data_key_fkey FOREIGN KEY (org_id, data_key_version)
    REFERENCES provisioner.data_keys (org_id, version),
  CONSTRAINT tenant_credentials_slot_check CHECK (slot IN ('a', 'b')),
  CONSTRAINT tenant_credentials_role_name_check CHECK (role_name ~ '^mad_[a-z0-9_]{1,59}$')
);
COMMENT ON TABLE provisioner.tenant_credentials IS 'The two logins of a tenant''s database, one of them in use. Owner: provisioner';
COMMENT ON COLUMN provisioner.tenant_credentials.secret IS 'Confidential: the password, sealed under the organization''s data key';
CREATE UNIQUE INDEX idx_tenant_credentials_active ON provisioner.tenant_credentials (org_id, schema) WHERE active;

CREATE TABLE provisioner.cleanup_records (
  cleanup_id uuid NOT NULL DEFAULT gen_random_uuid(),
  operation_id uuid NOT NULL,
  org_id uuid NOT NULL,
  schema text NOT NULL,
  server_id uuid NOT NULL,
  object_kind text NOT NULL,
  object_name text NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT cleanup_records_pkey PRIMARY KEY (cleanup_id),
  CONSTRAINT cleanup_records_object_key UNIQUE (server_id, object_kind, object_name),
  CONSTRAINT cleanup_records_operation_id_fkey FOREIGN KEY (operation_id)
    REFERENCES provisioner.operations (operation_id),
  CONSTRAINT cleanup_records_server_id_fkey FOREIGN KEY (server_id)
    REFERENCES provisioner.database_servers (server_id),
  CONSTRAINT cleanup_records_object_kind_check CHECK (object_kind IN ('database', 'role', 'template')),
  CONSTRAINT cleanup_records_object_name_check CHECK (object_name ~ '^mad_[a-z0-9_]{1,59}$')
);
COMMENT ON TABLE provisioner.cleanup_records IS 'What an operation is about to make outside this database: written before, removed when it is kept. Owner: provisioner';
CREATE INDEX idx_cleanup_records_operation_id ON provisioner.cleanup_records (operation_id);

CREATE TABLE provisioner.tenant_change_counters (
  schema text NOT NULL,
  last_seq bigint NOT NULL DEFAULT 0,
  CONSTRAINT tenant_change_counters_pkey PRIMARY KEY (schema),
  CONSTRAINT tenant_change_counters_last_seq_check CHECK (last_seq >= 0)
);
COMMENT ON TABLE provisioner.tenant_change_counters IS 'Numbers the changes of a tenant schema: its row is locked until the commit, so numbers follow commits without gaps. Owner: provisioner';

CREATE TABLE provisioner.tenant_changes (
  schema text NOT NULL,
  seq bigint NOT NULL,
  org_id uuid NOT NULL,
  generation bigint NOT NULL,
  state text NOT NULL,
  changed_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT tenant_changes_pkey PRIMARY KEY (schema, seq),
  CONSTRAINT tenant_changes_tenant_fkey FOREIGN KEY (org_id, schema) REFERENCES provisioner.tenants (org_id, schema),
  CONSTRAINT tenant_changes_seq_check CHECK (seq > 0),
  CONSTRAINT tenant_changes_generation_check CHECK (generation > 0)
);
COMMENT ON TABLE provisioner.tenant_changes IS 'What routers must know, in commit order. Owner: provisioner';

${['tenants', 'data_keys', 'operations', 'tenant_credentials', 'cleanup_records', 'tenant_changes']
  .map((table) => rlsSql({ schema: 'provisioner', table, systemMay: true }))
  .join('\n')}
${appendOnlySql('provisioner', 'tenant_changes')}
-- The login that serves users reads tenants and nothing else; secrets are for the second login.
REVOKE ALL ON provisioner.database_servers, provisioner.data_keys, provisioner.operations, provisioner.tenant_credentials,
  provisioner.cleanup_records, provisioner.tenant_changes, provisioner.tenant_change_counters FROM mad_provisioner;
REVOKE INSERT, UPDATE, DELETE ON provisioner.tenants FROM mad_provisioner;
`,
  down: `
DROP TABLE provisioner.tenant_changes;
DROP TABLE provisioner.tenant_change_counters;
DROP TABLE provisioner.cleanup_records;
DROP TABLE provisioner.tenant_credentials;
DROP TABLE provisioner.tenants;
DROP TABLE provisioner.operations;
DROP TABLE provisioner.data_keys;
DROP TABLE provisioner.database_servers;
`,
});
