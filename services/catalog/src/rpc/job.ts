import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import {
  CachePolicy,
  JobSchema,
  JobState as JobStateMessage,
  type Job,
  type JobProgress as JobProgressMessage,
  type LeasedTaskSchema,
} from '@mad/proto/catalog';
import { invalid } from '@mad/rpc';
import type { CachePolicyName, JobRow } from '../db/entities/job.ts';
import { counterFault, type JobProgress, type JobState } from '../domain/job-progress.ts';
import type { LeasedRow } from '../jobs/claim.ts';

const STATES: Record<JobState, JobStateMessage> = {
  pending: JobStateMessage.PENDING,
  queued: JobStateMessage.QUEUED,
  running: JobStateMessage.RUNNING,
  completed: JobStateMessage.COMPLETED,
  failed: JobStateMessage.FAILED,
  cancelled: JobStateMessage.CANCELLED,
};

const POLICIES: Record<CachePolicyName, CachePolicy> = {
  use: CachePolicy.USE,
  refresh: CachePolicy.REFRESH,
  bypass: CachePolicy.BYPASS,
  only: CachePolicy.ONLY,
};

/** The columns of a job that its message is made of, without `SELECT *`. */
export const JOB_COLUMNS = `job_id, org_id, pipeline_id, pipeline_version_id, molecule_set_id, name, status, detail,
  priority, labels, parameters, cache_policy, requested, cached, scored, failed, skipped, cancelled, pending, event_seq,
  created_by, created_at, updated_at, admitted_at, cancel_requested_at, ended_at`;

/** A job's row without what only its running needs. */
export type JobView = Omit<
  JobRow,
  | 'plan'
  | 'min_confidence'
  | 'max_age_s'
  | 'input_count'
  | 'planned_tasks'
  | 'materialized_at'
  | 'cancel_requested_by'
  | 'checked_at'
  | 'traceparent'
>;

/** A job as callers see it. */
export function jobMessage(row: JobView): Job {
  return create(JobSchema, {
    jobId: row.job_id,
    orgId: row.org_id,
    pipelineId: row.pipeline_id,
    pipelineVersionId: row.pipeline_version_id,
    moleculeSetId: row.molecule_set_id,
    name: row.name,
    state: STATES[row.status],
    priority: row.priority,
    labels: row.labels,
    counters: {
      requested: BigInt(row.requested),
      cached: BigInt(row.cached),
      scored: BigInt(row.scored),
      failed: BigInt(row.failed),
      skipped: BigInt(row.skipped),
      cancelled: BigInt(row.cancelled),
      pending: BigInt(row.pending),
    },
    eventSeq: BigInt(row.event_seq),
    createdBy: row.created_by,
    cancelRequested: row.cancel_requested_at !== null,
    detail: row.detail,
    parameters: row.parameters,
    cachePolicy: POLICIES[row.cache_policy],
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
    endTime: row.ended_at ? timestampFromDate(row.ended_at) : undefined,
  });
}

/** The database's word for a state; undefined where none is named. */
export function jobStateOf(message: JobStateMessage): JobState | undefined {
  return (Object.keys(STATES) as JobState[]).find((state) => STATES[state] === message);
}

/** The database's word for a policy; unspecified means to use what fits. */
export function cachePolicyOf(message: CachePolicy): CachePolicyName {
  return (Object.keys(POLICIES) as CachePolicyName[]).find((policy) => POLICIES[policy] === message) ?? 'use';
}

/** The contract's word for a policy. */
export function cachePolicyMessage(policy: CachePolicyName): CachePolicy {
  return POLICIES[policy];
}

/** What results told. Throws INVALID_ARGUMENT naming the field where it makes no sense. */
export function progressOf(message: JobProgressMessage, field = 'progress'): JobProgress {
  const state = jobStateOf(message.state);
  // A tenant that holds a job has at least queued it.
  if (state === undefined || state === 'pending') throw invalid(`${field}.state`, 'must say where the job stands');
  if (!message.counters) throw invalid(`${field}.counters`, 'is required');
  const { requested, cached, scored, failed, skipped, cancelled, pending } = message.counters;
  const counters = { requested, cached, scored, failed, skipped, cancelled, pending };
  const fault = counterFault(counters);
  if (fault !== undefined) throw invalid(`${field}.counters`, fault);
  const { eventSeq, detail, coreMs, savedCoreMs } = message;
  return { state, counters, eventSeq, detail, coreMs, savedCoreMs };
}

/** A lease as its worker gets it. */
export function leasedTaskMessage(row: LeasedRow, leaseToken: string): MessageInitShape<typeof LeasedTaskSchema> {
  return {
    orgId: row.org_id,
    jobId: row.job_id,
    taskExecutionId: row.task_execution_id,
    attempt: row.attempt,
    engine: row.engine,
    cores: row.cores,
    memoryMb: row.memory_mb,
    leaseToken,
    leaseExpireTime: timestampFromDate(row.lease_expires_at),
    traceparent: row.traceparent,
  };
}
