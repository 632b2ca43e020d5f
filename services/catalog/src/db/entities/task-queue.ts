import { EntitySchema } from '@mad/postgres';
import type { QueuedTaskState } from '../../domain/job-lease.ts';

/** A row of catalog.task_queue. */
export interface TaskQueueRow {
  task_execution_id: string;
  org_id: string;
  job_id: string;
  engine: string;
  cores: number;
  /** MiB. */
  memory_mb: number;
  priority: number;
  state: QueuedTaskState;
  /** Of the last lease, 0 before the first. */
  attempt: number;
  losses: number;
  worker: string | null;
  lease_expires_at: Date | null;
  not_before: Date | null;
  queued_at: Date;
  /** W3C Trace Context; empty when the job was made outside of a trace. */
  traceparent: string;
}

export const TaskQueueEntity = new EntitySchema<TaskQueueRow>({
  name: 'task_queue',
  schema: 'catalog',
  columns: {
    task_execution_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'task_queue_pkey',
      default: () => 'gen_random_uuid()',
    },
    org_id: { type: 'uuid' },
    job_id: { type: 'uuid' },
    engine: { type: 'text' },
    cores: { type: 'integer' },
    memory_mb: { type: 'integer', comment: 'Internal: MiB' },
    priority: { type: 'smallint', default: 0 },
    state: {
      type: 'text',
      default: 'ready',
      comment:
        'Internal: ready, leased, delayed (given back until not_before) or failing (its workers were lost too often)',
    },
    attempt: { type: 'integer', default: 0, comment: 'Internal: grows with every lease; the fence' },
    losses: { type: 'integer', default: 0, comment: 'Internal: leases that ran out' },
    worker: { type: 'text', nullable: true },
    lease_expires_at: { type: 'timestamptz', precision: 3, nullable: true },
    not_before: { type: 'timestamptz', precision: 3, nullable: true },
    queued_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    traceparent: { type: 'text', default: '', comment: "Internal: the job's; the worker goes on with it" },
  },
});

/** A row of catalog.org_queue. */
export interface OrgQueueRow {
  org_id: string;
  queued: number;
  running: number;
  /** 0 while the organization is suspended. */
  max_running: number;
  max_concurrent_jobs: number;
  weight: number;
  /** Tasks served over weight. */
  vtime: number;
}

export const OrgQueueEntity = new EntitySchema<OrgQueueRow>({
  name: 'org_queue',
  schema: 'catalog',
  columns: {
    org_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'org_queue_pkey' },
    queued: { type: 'integer', default: 0, comment: 'Internal: tasks ready for a worker' },
    running: { type: 'integer', default: 0, comment: 'Internal: tasks leased to a worker' },
    max_running: {
      type: 'integer',
      comment: 'Internal: hard cap of running; 0 while the organization is suspended',
    },
    max_concurrent_jobs: { type: 'integer' },
    weight: { type: 'double precision', default: 1 },
    vtime: {
      type: 'double precision',
      default: 0,
      comment: 'Internal: tasks served over weight; the least is served next',
    },
  },
});

/** A row of catalog.org_queue_depth. */
export interface OrgQueueDepthRow {
  org_id: string;
  engine: string;
  cores: number;
  /** MiB. */
  memory_mb: number;
  queued: number;
}

export const OrgQueueDepthEntity = new EntitySchema<OrgQueueDepthRow>({
  name: 'org_queue_depth',
  schema: 'catalog',
  columns: {
    org_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'org_queue_depth_pkey' },
    engine: { type: 'text', primary: true, primaryKeyConstraintName: 'org_queue_depth_pkey' },
    cores: { type: 'integer', primary: true, primaryKeyConstraintName: 'org_queue_depth_pkey' },
    memory_mb: {
      type: 'integer',
      primary: true,
      primaryKeyConstraintName: 'org_queue_depth_pkey',
      comment: 'Internal: MiB',
    },
    queued: { type: 'integer' },
  },
});
