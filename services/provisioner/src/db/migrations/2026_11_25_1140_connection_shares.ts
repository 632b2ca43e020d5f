import { defineMigration } from '@mad/postgres';

/** Which process may hold how many connections to which server. Of no organization: only the second login comes here. */
export const ConnectionShares = defineMigration(import.meta.url, {
  up: `
CREATE TABLE provisioner.connection_shares (
  server_id uuid NOT NULL,
  node text NOT NULL,
  place text NOT NULL DEFAULT '',
  share integer NOT NULL,
  granted integer NOT NULL,
  wanted integer NOT NULL,
  generation bigint NOT NULL DEFAULT 1,
  expires_at timestamptz(3) NOT NULL,
  CONSTRAINT connection_shares_pkey PRIMARY KEY (server_id, node),
  CONSTRAINT connection_shares_server_id_fkey FOREIGN KEY (server_id) REFERENCES provisioner.database_servers ON DELETE CASCADE,
  CONSTRAINT connection_shares_node_check CHECK (node ~ '^[A-Za-z0-9_.-]{1,17}$'),
  CONSTRAINT connection_shares_share_check CHECK (share >= 0 AND granted >= share AND wanted >= 0)
);
COMMENT ON TABLE provisioner.connection_shares IS 'Which process may hold how many connections to which server. Owner: provisioner';
COMMENT ON COLUMN provisioner.connection_shares.node IS 'Internal: the process, as its connections call themselves';
COMMENT ON COLUMN provisioner.connection_shares.place IS 'Internal: where the process listens; empty where that is not known';
COMMENT ON COLUMN provisioner.connection_shares.share IS 'Internal: connections it was last told it may hold';
COMMENT ON COLUMN provisioner.connection_shares.granted IS 'Internal: connections it may hold in truth, until it says that it let go';
COMMENT ON COLUMN provisioner.connection_shares.wanted IS 'Internal: connections it has use for';
REVOKE ALL ON provisioner.connection_shares FROM mad_provisioner;
CREATE INDEX idx_connection_shares_expires_at ON provisioner.connection_shares (expires_at);
`,
  down: 'DROP TABLE provisioner.connection_shares',
});
