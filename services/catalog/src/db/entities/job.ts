import type { JsonObject, JsonValue } from '@bufbuild/protobuf';
import { EntitySchema } from '@mad/postgres';
import { JOB_STATES, type JobState } from '../../domain/job-progress.ts';

/** How a job uses earlier results, as the table spells it. */
export type CachePolicyName = 'use' | 'refresh' | 'bypass' | 'only';

/** A row of catalog.jobs_meta; 64-bit counts arrive as text. */
export interface JobRow {
  job_id: string;
  org_id: string;
  pipeline_id: string;
  pipeline_version_id: string;
  molecule_set_id: string;
  name: string;
  status: JobState;
  detail: string;
  priority: number;
  labels: Record<string, string>;
  parameters: JsonObject;
  /** The resolved tasks, each a mad.results.v1.TaskPlan in JSON. */
  plan: JsonValue[];
  cache_policy: CachePolicyName;
  min_confidence: number;
  max_age_s: number;
  input_count: number;
  planned_tasks: number;
  requested: string;
  cached: string;
  scored: string;
  failed: string;
  skipped: string;
  cancelled: string;
  pending: string;
  event_seq: string;
  created_by: string;
  created_at: Date;
  updated_at: Date;
  admitted_at: Date | null;
  materialized_at: Date | null;
  cancel_requested_at: Date | null;
  cancel_requested_by: string | null;
  ended_at: Date | null;
  checked_at: Date;
  /** W3C Trace Context; empty when it was made outside of a trace. */
  traceparent: string;
  core_ms: string;
  saved_core_ms: string;
}

export const JobEntity = new EntitySchema<JobRow>({
  name: 'jobs_meta',
  schema: 'catalog',
  columns: {
    job_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'jobs_meta_pkey',
      default: () => 'gen_random_uuid()',
    },
    org_id: { type: 'uuid' },
    pipeline_id: { type: 'uuid' },
    pipeline_version_id: { type: 'uuid' },
    molecule_set_id: { type: 'uuid' },
    name: { type: 'text', default: '', comment: 'Confidential: a name for people' },
    status: { type: 'enum', enum: [...JOB_STATES], enumName: 'job_status', default: 'pending' },
    detail: { type: 'text', default: '', comment: 'Confidential: why it waits or failed' },
    priority: { type: 'smallint', default: 0 },
    labels: { type: 'jsonb', default: {}, comment: 'Confidential: free labels' },
    parameters: { type: 'jsonb', comment: "Confidential: the job's parameters, defaults filled in" },
    plan: { type: 'jsonb', comment: 'Confidential: the resolved tasks; nothing in them changes after submission' },
    cache_policy: { type: 'text', default: 'use' },
    min_confidence: { type: 'double precision', default: 0 },
    max_age_s: {
      type: 'integer',
      default: 0,
      comment: 'Internal: earlier results older than this are not taken, seconds; 0 takes any',
    },
    input_count: { type: 'integer' },
    planned_tasks: {
      type: 'integer',
      comment: 'Internal: task executions it has at most, counted against the quota until it is materialized',
    },
    requested: { type: 'bigint', default: 0 },
    cached: { type: 'bigint', default: 0 },
    scored: { type: 'bigint', default: 0 },
    failed: { type: 'bigint', default: 0 },
    skipped: { type: 'bigint', default: 0 },
    cancelled: { type: 'bigint', default: 0 },
    pending: { type: 'bigint', default: 0 },
    event_seq: {
      type: 'bigint',
      default: 0,
      comment: 'Internal: the number of the last event settled; a progress that is not above it is old',
    },
    created_by: { type: 'uuid', comment: 'PII: the user who submitted it' },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    admitted_at: {
      type: 'timestamptz',
      precision: 3,
      nullable: true,
      comment: "Internal: when it got one of the organization's places",
    },
    materialized_at: {
      type: 'timestamptz',
      precision: 3,
      nullable: true,
      comment: 'Internal: when its tenant was known to hold it',
    },
    cancel_requested_at: { type: 'timestamptz', precision: 3, nullable: true },
    cancel_requested_by: { type: 'uuid', nullable: true, comment: 'PII: the user who cancelled it' },
    ended_at: { type: 'timestamptz', precision: 3, nullable: true },
    checked_at: {
      type: 'timestamptz',
      precision: 3,
      default: () => 'now()',
      comment: 'Internal: when results was last heard of it',
    },
    traceparent: { type: 'text', default: '', comment: 'Internal: the trace of the request that created it' },
    core_ms: {
      type: 'bigint',
      default: 0,
      comment: 'Internal: core milliseconds of its executions, last settled',
    },
    saved_core_ms: {
      type: 'bigint',
      default: 0,
      comment: 'Internal: core milliseconds that earlier results saved it, last settled',
    },
  },
});
