import { EntitySchema } from '@mad/postgres';
import type { RetentionRule } from '../../domain/retention.ts';

/** A row of results.retention_policies. The newest version is in force. */
export interface RetentionPolicyRow {
  policy_id: string;
  version: number;
  rules: RetentionRule[];
  set_by: string;
  set_at: Date;
}

export const RetentionPolicyEntity = new EntitySchema<RetentionPolicyRow>({
  name: 'retention_policies',
  schema: 'results',
  columns: {
    policy_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'retention_policies_pkey' },
    version: { type: 'integer' },
    rules: { type: 'jsonb' },
    set_by: { type: 'text', comment: 'PII: the user who set it' },
    set_at: { type: 'timestamptz', default: () => 'now()' },
  },
  uniques: [{ name: 'retention_policies_version_key', columns: ['version'] }],
});

/** What a run of retention deleted. `bytes` of rows in their tables, without indexes. */
export interface RetentionCounts {
  jobs: number;
  items: number;
  poses: number;
  events: number;
  cache_entries: number;
  partitions: number;
  bytes: number;
}

/** A row of results.retention_runs. */
export interface RetentionRunRow extends RetentionCounts {
  run_id: string;
  policy_version: number;
  started_by: string;
  started_at: Date;
  ended_at: Date | null;
}

const count = { type: 'bigint', default: 0 } as const;

export const RetentionRunEntity = new EntitySchema<RetentionRunRow>({
  name: 'retention_runs',
  schema: 'results',
  columns: {
    run_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'retention_runs_pkey' },
    policy_version: { type: 'integer' },
    started_by: {
      type: 'text',
      default: '',
      comment: 'PII: the user who applied the policy; empty when the clock did',
    },
    started_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    ended_at: { type: 'timestamptz', nullable: true },
    jobs: count,
    items: count,
    poses: count,
    events: count,
    cache_entries: count,
    partitions: count,
    bytes: count,
  },
});
