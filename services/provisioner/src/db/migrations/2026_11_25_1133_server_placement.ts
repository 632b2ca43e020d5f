import { defineMigration, rlsSql } from '@mad/postgres';

/** What servers are like and how they fare, and why each tenant is where it is. */
export const ServerPlacement = defineMigration(import.meta.url, {
  up: `
ALTER TABLE provisioner.database_servers
  ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN reserved_connections integer NOT NULL DEFAULT 5,
  ADD CONSTRAINT database_servers_labels_check CHECK (jsonb_typeof(labels) = 'object'),
  ADD CONSTRAINT database_servers_reserved_connections_check CHECK (reserved_connections BETWEEN 0 AND 1000);
COMMENT ON COLUMN provisioner.database_servers.reserved_connections IS 'Internal: connections beside the budget, for administration and migrations';

CREATE TABLE provisioner.server_samples (
  server_id uuid NOT NULL,
  claimed_at timestamptz(3) NOT NULL DEFAULT now(),
  sampled_at timestamptz(3),
  error text NOT NULL DEFAULT '',
  sessions integer NOT NULL DEFAULT 0,
  active integer NOT NULL DEFAULT 0,
  max_connections integer NOT NULL DEFAULT 0,
  size_bytes bigint NOT NULL DEFAULT 0,
  sized_at timestamptz(3),
  CONSTRAINT server_samples_pkey PRIMARY KEY (server_id),
  CONSTRAINT server_samples_server_id_fkey FOREIGN KEY (server_id)
    REFERENCES provisioner.database_servers (server_id) ON DELETE CASCADE,
  CONSTRAINT server_samples_counts_check CHECK (least(sessions, active, max_connections, size_bytes) >= 0)
);
COMMENT ON TABLE provisioner.server_samples IS 'How each server was found last: what placement weighs. Owner: provisioner';
COMMENT ON COLUMN provisioner.server_samples.claimed_at IS 'Internal: when a process began to look';
COMMENT ON COLUMN provisioner.server_samples.error IS 'Internal: why it did not answer; empty when it did';

CREATE TABLE provisioner.placements (
  org_id uuid NOT NULL,
  schema text NOT NULL,
  region text NOT NULL,
  server_name text NOT NULL,
  verdicts jsonb NOT NULL,
  placed_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT placements_pkey PRIMARY KEY (org_id, schema),
  CONSTRAINT placements_verdicts_check CHECK (jsonb_typeof(verdicts) = 'array')
);
COMMENT ON TABLE provisioner.placements IS 'Why a tenant was put where it is: what was said of every server then. Owner: provisioner';
${rlsSql({ schema: 'provisioner', table: 'placements', systemMay: true })}
REVOKE ALL ON provisioner.server_samples, provisioner.placements FROM mad_provisioner;
`,
  down: `
DROP TABLE provisioner.placements;
DROP TABLE provisioner.server_samples;
ALTER TABLE provisioner.database_servers DROP COLUMN reserved_connections, DROP COLUMN labels;
`,
});
