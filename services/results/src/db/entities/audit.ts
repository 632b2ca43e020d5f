import { EntitySchema } from '@mad/postgres';

/** A row of results.audit_log. */
export interface AuditRow {
  seq: number;
  ts: Date;
  user_id: string;
  action: string;
  job_id: string;
  outcome: string;
  metadata: Record<string, unknown>;
  prev_hash: string;
  hash: string;
}

export const AuditEntity = new EntitySchema<AuditRow>({
  name: 'audit_log',
  schema: 'results',
  columns: {
    seq: { type: 'bigint', primary: true, primaryKeyConstraintName: 'audit_log_pkey' },
    ts: { type: 'timestamptz', precision: 3 },
    user_id: { type: 'text', default: '', comment: 'PII: the user who acted; empty when the system did' },
    action: { type: 'text' },
    job_id: { type: 'uuid' },
    outcome: { type: 'text' },
    metadata: { type: 'jsonb', default: {} },
    prev_hash: { type: 'text', unique: true },
    hash: { type: 'text', unique: true },
  },
});
