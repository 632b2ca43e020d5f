import { appendOnlySql, defineMigration, rlsSql } from '@mad/postgres';

/** Enough that one busy organization does not make the others' partitions large. */
const PARTITIONS = 8;

/**
 * Partitions are reached through the parent alone: default privileges would let a login write one directly, past the
 * parent's policies.
 */
function partitionSql(number: number): string {
  const name = `identity.audit_logs_p${number}`;
  return `
CREATE TABLE ${name} PARTITION OF identity.audit_logs FOR VALUES WITH (MODULUS ${PARTITIONS}, REMAINDER ${number});
REVOKE ALL ON ${name} FROM mad_identity, mad_identity_system;`;
}

/** The append-only, hash-chained record of who did what. */
export const Audit = defineMigration(import.meta.url, {
  up: `
CREATE TABLE identity.audit_chains (
  org_id uuid NOT NULL,
  last_seq bigint NOT NULL DEFAULT 0,
  last_hash bytea NOT NULL,
  CONSTRAINT audit_chains_pkey PRIMARY KEY (org_id),
  CONSTRAINT audit_chains_last_seq_check CHECK (last_seq >= 0),
  CONSTRAINT audit_chains_last_hash_check CHECK (octet_length(last_hash) = 32)
);
COMMENT ON TABLE identity.audit_chains
  IS 'The head of each organization''s audit chain, locked while it grows; the nil UUID is the platform. Owner: identity';

CREATE TABLE identity.audit_logs (
  audit_id uuid NOT NULL,
  org_id uuid NOT NULL,
  seq bigint NOT NULL,
  user_id uuid,
  actor_kind text NOT NULL,
  action text NOT NULL,
  entity_type text NOT NULL DEFAULT '',
  entity_id text NOT NULL DEFAULT '',
  pipeline_id uuid,
  job_id uuid,
  request_id uuid,
  address text NOT NULL DEFAULT '',
  outcome text NOT NULL,
  metadata jsonb NOT NULL DEFAULT '{}',
  ts timestamptz(3) NOT NULL,
  prev_hash bytea NOT NULL,
  hash bytea NOT NULL,
  CONSTRAINT audit_logs_pkey PRIMARY KEY (org_id, seq),
  CONSTRAINT audit_logs_org_id_audit_id_key UNIQUE (org_id, audit_id),
  CONSTRAINT audit_logs_seq_check CHECK (seq > 0),
  CONSTRAINT audit_logs_actor_kind_check CHECK (actor_kind IN ('user', 'platform', 'service')),
  CONSTRAINT audit_logs_action_check CHECK (char_length(action) BETWEEN 1 AND 255),
  CONSTRAINT audit_logs_entity_type_check CHECK (char_length(entity_type) <= 63),
  CONSTRAINT audit_logs_entity_id_check CHECK (char_length(entity_id) <= 255),
  CONSTRAINT audit_logs_address_check CHECK (char_length(address) <= 64),
  CONSTRAINT audit_logs_outcome_check CHECK (char_length(outcome) BETWEEN 1 AND 63),
  CONSTRAINT audit_logs_metadata_check CHECK (jsonb_typeof(metadata) = 'object'),
  CONSTRAINT audit_logs_prev_hash_check CHECK (octet_length(prev_hash) = 32),
  CONSTRAINT audit_logs_hash_check CHECK (octet_length(hash) = 32)
) PARTITION BY HASH (org_id);
CREATE INDEX idx_audit_org_timestamp ON identity.audit_logs (org_id, ts DESC);
COMMENT ON TABLE identity.audit_logs
  IS 'Who did what: append-only, hash-chained per organization; the nil UUID is the platform. Owner: identity';
COMMENT ON COLUMN identity.audit_logs.user_id IS 'PII: the person who acted; no foreign key, the record outlives the account';
COMMENT ON COLUMN identity.audit_logs.address IS 'PII: network address, as the edge reports it';
COMMENT ON COLUMN identity.audit_logs.metadata IS 'Confidential: more about the event, never secrets';
COMMENT ON COLUMN identity.audit_logs.hash IS 'Internal: SHA-256 of prev_hash and the row''s canonical form';
${Array.from({ length: PARTITIONS }, (_, number) => partitionSql(number)).join('\n')}

${rlsSql({ schema: 'identity', table: 'audit_chains', systemMay: true })}
${rlsSql({ schema: 'identity', table: 'audit_logs', systemMay: true })}
${appendOnlySql('identity', 'audit_logs')}
`,
  down: `
DROP TABLE identity.audit_logs;
DROP TABLE identity.audit_chains;
`,
});
