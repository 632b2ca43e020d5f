import { EntitySchema } from '@mad/postgres';

/** A row of identity.audit_chains: the head of one organization's chain. */
export interface AuditChainRow {
  org_id: string;
  /** bigint, as the driver gives it. */
  last_seq: string;
  last_hash: Buffer;
}

export const AuditChainEntity = new EntitySchema<AuditChainRow>({
  name: 'audit_chains',
  schema: 'identity',
  columns: {
    org_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'audit_chains_pkey' },
    last_seq: { type: 'bigint', default: 0 },
    last_hash: { type: 'bytea' },
  },
});

/** A row of identity.audit_logs. */
export interface AuditLogRow {
  audit_id: string;
  org_id: string;
  /** bigint, as the driver gives it. */
  seq: string;
  user_id: string | null;
  actor_kind: 'user' | 'platform' | 'service';
  action: string;
  entity_type: string;
  entity_id: string;
  pipeline_id: string | null;
  job_id: string | null;
  request_id: string | null;
  address: string;
  outcome: string;
  metadata: Record<string, unknown>;
  ts: Date;
  prev_hash: Buffer;
  hash: Buffer;
}

export const AuditLogEntity = new EntitySchema<AuditLogRow>({
  name: 'audit_logs',
  schema: 'identity',
  columns: {
    org_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'audit_logs_pkey' },
    seq: { type: 'bigint', primary: true, primaryKeyConstraintName: 'audit_logs_pkey' },
    audit_id: { type: 'uuid' },
    user_id: { type: 'uuid', nullable: true },
    actor_kind: { type: 'text' },
    action: { type: 'text' },
    entity_type: { type: 'text', default: '' },
    entity_id: { type: 'text', default: '' },
    pipeline_id: { type: 'uuid', nullable: true },
    job_id: { type: 'uuid', nullable: true },
    request_id: { type: 'uuid', nullable: true },
    address: { type: 'text', default: '' },
    outcome: { type: 'text' },
    metadata: { type: 'jsonb', default: {} },
    ts: { type: 'timestamptz', precision: 3 },
    prev_hash: { type: 'bytea' },
    hash: { type: 'bytea' },
  },
});
