import { EntitySchema } from '@mad/postgres';
import { CACHE_POLICIES, type CachePolicy } from '../../domain/cache-entry.ts';
import type { Counters } from '../../domain/counters.ts';
import type { JobState } from '../../domain/job-state.ts';

/** Counters as columns: they move together, and a CHECK holds their sum. */
export const counterColumns = {
  requested: { type: 'integer', default: 0 },
  cached: { type: 'integer', default: 0 },
  scored: { type: 'integer', default: 0 },
  failed: { type: 'integer', default: 0 },
  skipped: { type: 'integer', default: 0 },
  cancelled: { type: 'integer', default: 0 },
  pending: { type: 'integer', default: 0 },
} as const;

/**
 * Where retention stands with a job. Dropping: its events are counted, its items looked at and deleted, structures that no
 * pose is left of given up. Clearing: poses of items that are gone are deleted, and then its events.
 */
export interface DropProgress {
  stage: 'events' | 'items' | 'structures' | 'poses' | 'old_events';
  /** The job had all of its results when it began. */
  fresh: boolean;
  /** Done with up to here: of items and poses this task's item, of events the number. */
  task: string;
  at: number;
  /** What went so far, and what stays because somebody needs it. */
  items: number;
  poses: number;
  needed: number;
}

/** A row of results.jobs. */
export interface JobRow extends Counters {
  job_id: string;
  pipeline_version_id: string;
  status: JobState;
  input_signature: string;
  params: Record<string, unknown>;
  cache_policy: CachePolicy;
  min_confidence: number;
  max_age_s: number | null;
  timings: Record<string, unknown>;
  metrics: Record<string, unknown>;
  error: string;
  event_seq: number;
  created_by: string;
  created_at: Date;
  started_at: Date | null;
  ended_at: Date | null;
  pipeline_id: string | null;
  results_dropped_at: Date | null;
  results_top: number | null;
  results_needed: number;
  sweep_due: boolean;
  drop_progress: DropProgress | null;
  core_ms: number;
  saved_core_ms: number;
}

export const JobEntity = new EntitySchema<JobRow>({
  name: 'jobs',
  schema: 'results',
  columns: {
    job_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'jobs_pkey', default: () => 'gen_random_uuid()' },
    pipeline_version_id: { type: 'uuid' },
    status: {
      type: 'enum',
      enum: ['pending', 'queued', 'running', 'completed', 'failed', 'cancelled'],
      enumName: 'job_status',
      default: 'queued',
    },
    input_signature: { type: 'text' },
    params: { type: 'jsonb', default: {}, comment: 'Confidential: parameters as the user sees them' },
    cache_policy: { type: 'enum', enum: [...CACHE_POLICIES], enumName: 'cache_policy', default: 'use' },
    min_confidence: { type: 'double precision', default: 0 },
    max_age_s: {
      type: 'integer',
      nullable: true,
      comment: 'Internal: earlier results older than this are not taken, seconds; null takes any',
    },
    timings: { type: 'jsonb', default: {}, comment: 'Internal: milliseconds waited and run, once ended' },
    metrics: { type: 'jsonb', default: {} },
    error: { type: 'text', default: '' },
    event_seq: { type: 'bigint', default: 0 },
    created_by: { type: 'text', default: '', comment: 'PII: the user who asked; no name, no foreign key' },
    created_at: { type: 'timestamptz', default: () => 'now()' },
    started_at: { type: 'timestamptz', nullable: true },
    ended_at: { type: 'timestamptz', nullable: true },
    ...counterColumns,
    pipeline_id: {
      type: 'uuid',
      nullable: true,
      comment: 'Internal: retention may be set by pipeline; null for jobs made before it was noted',
    },
    results_dropped_at: {
      type: 'timestamptz',
      nullable: true,
      comment: 'Internal: when retention dropped its items, poses and events, but for what is kept',
    },
    results_top: {
      type: 'integer',
      nullable: true,
      comment: 'Internal: how many of the best hits of each task were kept then',
    },
    results_needed: {
      type: 'integer',
      default: 0,
      comment: 'Internal: further items that were kept because a pin, or an answer of another job, needs them',
    },
    sweep_due: {
      type: 'boolean',
      default: false,
      comment:
        'Internal: its poses and events show nowhere any more, and go with the partitions of its month or row by row',
    },
    drop_progress: {
      type: 'jsonb',
      nullable: true,
      comment: "Internal: where retention stands while it drops the job's results slice by slice; null otherwise",
    },
    core_ms: { type: 'bigint', default: 0, comment: 'Internal: core milliseconds of its executions' },
    saved_core_ms: {
      type: 'bigint',
      default: 0,
      comment: 'Internal: core milliseconds that computing what earlier results answered had taken',
    },
  },
});

/** A row of results.job_tasks. */
export interface JobTaskRow extends Counters {
  job_id: string;
  task_id: string;
  position: number;
  /** mad.results.v1.TaskPlan as JSON. */
  plan: Record<string, unknown>;
  /** Of its histogram, in its score's unit; null when it gives no score. */
  bin_width: number | null;
}

export const JobTaskEntity = new EntitySchema<JobTaskRow>({
  name: 'job_tasks',
  schema: 'results',
  columns: {
    job_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'job_tasks_pkey' },
    task_id: { type: 'text', primary: true, primaryKeyConstraintName: 'job_tasks_pkey' },
    position: { type: 'integer' },
    plan: { type: 'jsonb' },
    bin_width: {
      type: 'double precision',
      nullable: true,
      comment: "Internal: of its histogram, in its score's unit; null when it gives no score",
    },
    ...counterColumns,
  },
  uniques: [{ name: 'job_tasks_position_key', columns: ['job_id', 'position'] }],
});

/** A row of results.job_inputs. */
export interface JobInputRow {
  job_id: string;
  /** "<task id>.<parameter>" */
  key: string;
  uri: string;
  content_type: string | null;
  size_bytes: number | null;
  checksum: string;
}

export const JobInputEntity = new EntitySchema<JobInputRow>({
  name: 'job_inputs',
  schema: 'results',
  columns: {
    job_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'job_inputs_pkey' },
    key: { type: 'text', primary: true, primaryKeyConstraintName: 'job_inputs_pkey' },
    uri: { type: 'text' },
    content_type: { type: 'text', nullable: true },
    size_bytes: { type: 'bigint', nullable: true },
    checksum: { type: 'text' },
  },
});

/** A row of results.job_events. */
export interface JobEventRow {
  job_id: string;
  seq_no: number;
  ts: Date;
  event: string;
  detail: string;
  metadata: Record<string, unknown>;
}

export const JobEventEntity = new EntitySchema<JobEventRow>({
  name: 'job_events',
  schema: 'results',
  columns: {
    job_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'job_events_pkey' },
    seq_no: { type: 'bigint', primary: true, primaryKeyConstraintName: 'job_events_pkey' },
    ts: { type: 'timestamptz', default: () => 'now()' },
    event: { type: 'text' },
    detail: { type: 'text', default: '' },
    metadata: { type: 'jsonb', default: {} },
  },
});
