import { defineMigration, rlsSql } from '@mad/postgres';

/** Databases cloned ahead of their organizations. A row is written before its database is made. */
export const TenantStock = defineMigration(import.meta.url, {
  up: `
CREATE TABLE provisioner.tenant_stock (
  stock_id uuid NOT NULL DEFAULT gen_random_uuid(),
  server_id uuid NOT NULL,
  schema text NOT NULL,
  database_name text NOT NULL,
  template text NOT NULL,
  state text NOT NULL DEFAULT 'making',
  org_id uuid,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT tenant_stock_pkey PRIMARY KEY (stock_id),
  CONSTRAINT tenant_stock_database_name_key UNIQUE (server_id, database_name),
  CONSTRAINT tenant_stock_server_id_fkey FOREIGN KEY (server_id) REFERENCES provisioner.database_servers (server_id),
  CONSTRAINT tenant_stock_schema_check CHECK (schema ~ '^[a-z][a-z0-9_]{0,30}$'),
  CONSTRAINT tenant_stock_database_name_check CHECK (database_name ~ '^mad_[a-z0-9_]{1,59}$'),
  CONSTRAINT tenant_stock_template_check CHECK (template ~ '^mad_[a-z0-9_]{1,59}$'),
  CONSTRAINT tenant_stock_state_check CHECK (state IN ('making', 'ready', 'claimed')),
  CONSTRAINT tenant_stock_claim_check CHECK ((state = 'claimed') = (org_id IS NOT NULL))
);
COMMENT ON TABLE provisioner.tenant_stock IS 'Clones of the templates that wait for an organization, claimed with SKIP LOCKED. Owner: provisioner';
COMMENT ON COLUMN provisioner.tenant_stock.template IS 'Internal: what it was cloned from, which tells its version';
COMMENT ON COLUMN provisioner.tenant_stock.org_id IS 'Internal: whose database it is about to become';
CREATE INDEX idx_tenant_stock_server_id_schema ON provisioner.tenant_stock (server_id, schema, state);
CREATE UNIQUE INDEX idx_tenant_stock_org_id_schema ON provisioner.tenant_stock (org_id, schema) WHERE org_id IS NOT NULL;
${rlsSql({ schema: 'provisioner', table: 'tenant_stock', systemMay: true })}
REVOKE ALL ON provisioner.tenant_stock FROM mad_provisioner;
`,
  down: `DROP TABLE provisioner.tenant_stock;`,
});
