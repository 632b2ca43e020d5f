import { defineMigration } from '@mad/postgres';

/** What was done to the organization's data: only ever added to, each line holding the hash of the one before. */
export const AuditLog = defineMigration(import.meta.url, {
  up: `
  CREATE TABLE results.audit_log (
    seq bigint NOT NULL,
    ts timestamptz(3) NOT NULL,
    user_id text NOT NULL DEFAULT '',
    action text NOT NULL,
    job_id uuid NOT NULL,
    outcome text NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    prev_hash text NOT NULL,
    hash text NOT NULL,
    CONSTRAINT audit_log_pkey PRIMARY KEY (seq),
    CONSTRAINT audit_log_hash_key UNIQUE (hash),
    CONSTRAINT audit_log_prev_hash_key UNIQUE (prev_hash),
    CONSTRAINT audit_log_seq_check CHECK (seq >= 1),
    CONSTRAINT audit_log_action_check CHECK (char_length(action) BETWEEN 1 AND 63),
    CONSTRAINT audit_log_outcome_check CHECK (char_length(outcome) BETWEEN 1 AND 63),
    CONSTRAINT audit_log_metadata_check CHECK (jsonb_typeof(metadata) = 'object'),
    CONSTRAINT audit_log_prev_hash_check CHECK (prev_hash ~ '^[0-9a-f]{64}$'),
    CONSTRAINT audit_log_hash_check CHECK (hash ~ '^[0-9a-f]{64}$')
  );
  REVOKE UPDATE, DELETE, TRUNCATE ON results.audit_log FROM mad_results_app;
  COMMENT ON TABLE results.audit_log IS 'Confidential: data events, append-only; hash = sha256 over the hash before and the line.';
  COMMENT ON COLUMN results.audit_log.user_id IS 'PII: the user who acted; empty when the system did';`,

  down: `
  DROP TABLE results.audit_log;`,
});
