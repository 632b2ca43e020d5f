import { fromJson, type JsonObject, type JsonValue, type MessageInitShape } from '@bufbuild/protobuf';
import { CachePolicy as CachePolicyMessage, JobState as JobStateMessage } from '@mad/proto/catalog';
import type { JobCountersSchema, JobProgressSchema, RunnableTaskSchema } from '@mad/proto/catalog';
import { TaskPlanSchema, type TaskPlan } from '@mad/proto/results';
import { notFound } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import type { DropProgress, JobRow } from '../db/entities/job.ts';
import type { CachePolicy, Demand } from '../domain/cache-entry.ts';
import { afterEndings, sumOf, type Counters, type Endings } from '../domain/counters.ts';
import { EXECUTION_STATUSES, isAlive } from '../domain/execution.ts';
import type { JobState } from '../domain/job-state.ts';

/** One task of a job: its plan as submitted, and how its items stand. */
export interface JobTask {
  taskId: string;
  plan: TaskPlan;
  counters: Counters;
  /** Of its histogram; null when it gives no score. */
  binWidth: number | null;
  /** While retention drops its items: how many of its best hits are kept. These alone show. */
  keptTop?: number | undefined;
}

/** A job as a transaction sees it. Changed in memory, written by `saveJob`. */
export interface JobImage {
  row: JobRow;
  /** Upstream first. */
  tasks: JobTask[];
  /** What happened in this transaction; gets the next numbers when it is saved. */
  events: NewEvent[];
}

/** Something to tell about the job. */
export interface NewEvent {
  event: string;
  detail: string;
  metadata?: JsonObject;
}

/** The number that the job's next event gets. */
export const nextSeq = ({ row, events }: JobImage): number => row.event_seq + events.length + 1;

export const COUNTER_COLUMNS = 'requested, cached, scored, failed, skipped, cancelled, pending';
const JOB_COLUMNS = `job_id, pipeline_version_id, status, input_signature, params, cache_policy, min_confidence, max_age_s,
  timings, metrics, error, event_seq, created_by, created_at, started_at, ended_at, results_dropped_at, results_top, core_ms, saved_core_ms, ${COUNTER_COLUMNS},
  -- Read as JSON: a tenant that is not migrated yet has no such column, and drops nothing by slices.
  CASE WHEN results_dropped_at IS NOT NULL THEN to_jsonb(j) -> 'drop_progress' END AS drop_progress`;

const STATES: Record<JobState, JobStateMessage> = {
  queued: JobStateMessage.QUEUED,
  running: JobStateMessage.RUNNING,
  completed: JobStateMessage.COMPLETED,
  failed: JobStateMessage.FAILED,
  cancelled: JobStateMessage.CANCELLED,
};

const POLICIES: Record<CachePolicy, CachePolicyMessage> = {
  use: CachePolicyMessage.USE,
  refresh: CachePolicyMessage.REFRESH,
  bypass: CachePolicyMessage.BYPASS,
  only: CachePolicyMessage.ONLY,
};

/** The wire's words for the domain's. */
export const stateMessage = (state: JobState): JobStateMessage => STATES[state];
export const policyMessage = (policy: CachePolicy): CachePolicyMessage => POLICIES[policy];
export const policyOf = (message: CachePolicyMessage): CachePolicy =>
  (Object.keys(POLICIES) as CachePolicy[]).find((policy) => POLICIES[policy] === message)!;

/** What a request asks of earlier results; on the wire an age of 0 takes any. */
export const demandOf = ({ minConfidence, maxAgeS }: { minConfidence: number; maxAgeS: number }): Demand => ({
  minConfidence,
  maxAgeS: maxAgeS === 0 ? null : maxAgeS,
});

interface TaskRow extends Counters {
  task_id: string;
  plan: JsonValue;
  bin_width: number | null;
}

function imageOf(row: JobRow, tasks: readonly TaskRow[]): JobImage {
  const keptTop = losesItems(row.drop_progress) ? row.results_top! : undefined;
  const taskOf = ({ task_id: taskId, plan, bin_width: binWidth, ...counters }: TaskRow): JobTask => ({
    taskId,
    plan: fromJson(TaskPlanSchema, plan),
    counters,
    binWidth,
    keptTop,
  });
  return { row, tasks: tasks.map(taskOf), events: [] };
}

/** Whether a job that had all of its results has lost some of them, and goes on losing. */
function losesItems(progress: DropProgress | null): boolean {
  return progress !== null && progress.fresh && (progress.stage === 'events' || progress.stage === 'items');
}

/** The job, locked until the transaction ends: whoever moves its items waits here. Undefined when it is not here. */
export async function lockJob(tx: TenantTx, jobId: string): Promise<JobImage | undefined> {
  const [row] = await tx.query<JobRow>(`SELECT ${JOB_COLUMNS} FROM jobs j WHERE job_id = $1 FOR UPDATE`, [jobId]);
  if (row === undefined) return undefined;
  const tasks = await tx.query<TaskRow>(
    `SELECT task_id, plan, bin_width, ${COUNTER_COLUMNS} FROM job_tasks WHERE job_id = $1 ORDER BY position`,
    [jobId],
  );
  return imageOf(row, tasks);
}

/** The job as it is, in one snapshot. Undefined when it is not here. */
export async function readJob(tx: TenantTx, jobId: string): Promise<JobImage | undefined> {
  const [found] = await tx.query<JobRow & { tasks: TaskRow[] }>(
    `SELECT ${JOB_COLUMNS}, (SELECT jsonb_agg(jsonb_build_object('task_id', k.task_id, 'plan', k.plan, 'bin_width', k.bin_width, 'requested', k.requested,
         'cached', k.cached, 'scored', k.scored, 'failed', k.failed, 'skipped', k.skipped, 'cancelled', k.cancelled,
         'pending', k.pending) ORDER BY k.position) FROM job_tasks k WHERE k.job_id = j.job_id) AS tasks
       FROM jobs j WHERE job_id = $1`,
    [jobId],
  );
  if (found === undefined) return undefined;
  const { tasks, ...row } = found;
  return imageOf(row, tasks);
}

/** As `readJob`; NOT_FOUND when the tenant does not know it. */
export async function requireJob(tx: TenantTx, jobId: string): Promise<JobImage> {
  const job = await readJob(tx, jobId);
  if (job === undefined) throw notFound('job', jobId);
  return job;
}

/** The task of the job; every task id in a row has one (a foreign key says so). */
export function taskIn(job: JobImage, taskId: string): JobTask {
  return job.tasks.find((task) => task.taskId === taskId)!;
}

/** Takes over that items of a task ended. */
export function applyEndings(job: JobImage, taskId: string, endings: Endings): void {
  const task = taskIn(job, taskId);
  task.counters = afterEndings(task.counters, endings);
}

export function countersOf(job: JobImage): Counters {
  return sumOf(job.tasks.map(({ counters }) => counters));
}

export function countersMessage(counters: Counters): MessageInitShape<typeof JobCountersSchema> {
  return Object.fromEntries(Object.entries(counters).map(([key, count]) => [key, BigInt(count as number)]));
}

/** How the job stands, for catalog. */
export function progressOf(job: JobImage, counters = countersOf(job)): MessageInitShape<typeof JobProgressSchema> {
  const { job_id: jobId, status, event_seq: eventSeq, error, core_ms: coreMs, saved_core_ms: savedCoreMs } = job.row;
  return {
    jobId,
    state: stateMessage(status),
    counters: countersMessage(counters),
    eventSeq: BigInt(eventSeq),
    detail: error,
    coreMs: BigInt(coreMs),
    savedCoreMs: BigInt(savedCoreMs),
  };
}

/** A task execution for catalog's queue. */
export type Runnable = MessageInitShape<typeof RunnableTaskSchema>;

export function runnableOf(plan: TaskPlan, taskExecutionId: string): Runnable {
  return { taskExecutionId, engine: plan.engine, cores: plan.cores, memoryMb: plan.memoryMb };
}

const ALIVE = EXECUTION_STATUSES.filter(isAlive);

/** Everything of the job that catalog's queue should hold, whatever it was told before. */
export async function aliveExecutions(tx: TenantTx, job: JobImage): Promise<Runnable[]> {
  const rows = await tx.query<{ task_execution_id: string; task_id: string }>(
    `SELECT e.task_execution_id, e.task_id FROM task_executions e JOIN job_tasks k USING (job_id, task_id)
      WHERE e.job_id = $1 AND e.status = ANY ($2::execution_status[]) ORDER BY k.position, e.chunk_no`,
    [job.row.job_id, ALIVE],
  );
  return rows.map((row) => runnableOf(taskIn(job, row.task_id).plan, row.task_execution_id));
}
