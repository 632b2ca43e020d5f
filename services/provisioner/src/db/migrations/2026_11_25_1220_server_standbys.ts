import { defineMigration } from '@mad/postgres';

/** Where a server's standbys are, and by what its true primary is known. Of no organization: only the second login comes here. */
export const ServerStandbys = defineMigration(import.meta.url, {
  up: `
ALTER TABLE provisioner.database_servers
  ADD COLUMN system_identifier text,
  ADD COLUMN timeline integer NOT NULL DEFAULT 0,
  ADD COLUMN promoted_at timestamptz(3),
  ADD CONSTRAINT database_servers_system_check CHECK (system_identifier ~ '^-?[0-9]{1,20}$'),
  ADD CONSTRAINT database_servers_timeline_check CHECK (timeline >= 0 AND (timeline = 0) = (system_identifier IS NULL));
COMMENT ON COLUMN provisioner.database_servers.system_identifier IS 'Internal: the cluster, as its control file names it; null before the first look';
COMMENT ON COLUMN provisioner.database_servers.timeline IS 'Internal: the newest timeline its primary was seen on; a primary on an older one was left behind';
COMMENT ON COLUMN provisioner.database_servers.promoted_at IS 'Internal: when one of its standbys took over';
CREATE TABLE provisioner.server_standbys (
  server_id uuid NOT NULL,
  host text NOT NULL,
  port integer NOT NULL,
  sslmode text NOT NULL DEFAULT '',
  CONSTRAINT server_standbys_pkey PRIMARY KEY (server_id, host, port),
  CONSTRAINT server_standbys_server_id_fkey FOREIGN KEY (server_id) REFERENCES provisioner.database_servers ON DELETE CASCADE,
  CONSTRAINT server_standbys_host_check CHECK (char_length(host) BETWEEN 1 AND 255),
  CONSTRAINT server_standbys_port_check CHECK (port BETWEEN 1 AND 65535),
  CONSTRAINT server_standbys_sslmode_check CHECK (sslmode IN ('', 'verify-full', 'no-verify', 'disable'))
);
COMMENT ON TABLE provisioner.server_standbys IS 'Where a server''s standbys are, one of which may become its primary. Owner: provisioner';
REVOKE ALL ON provisioner.server_standbys FROM mad_provisioner;
`,
  down: `
DROP TABLE provisioner.server_standbys;
ALTER TABLE provisioner.database_servers
  DROP CONSTRAINT database_servers_timeline_check,
  DROP CONSTRAINT database_servers_system_check,
  DROP COLUMN promoted_at,
  DROP COLUMN timeline,
  DROP COLUMN system_identifier;`,
});
