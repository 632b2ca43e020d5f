import type { JsonObject } from '@bufbuild/protobuf';
import type { TenantTx } from '@mad/tenancy';
import { addEndings, type Endings } from '../domain/counters.ts';
import { decideFail, decideFinish } from '../domain/execution.ts';
import { missingOutcome, type ItemError } from '../domain/work-item.ts';
import { dropStaged, endFollowers, unblockTasks } from './endings.ts';
import { lockExecutionAndJob, type Execution } from './execution.ts';
import { aliveExecutions, applyEndings, nextSeq, taskIn, type JobImage, type Runnable } from './job-image.ts';
import { keepResults, type ScoredItem } from './keep-results.ts';
import { leaseLost } from './lease.ts';
import { joined } from './planned.ts';
import { closeJob, saveJob } from './save-job.ts';
import { countEnded } from './statistics.ts';

/** How the job stands after an execution ended, and what may be queued. */
export interface Ended {
  job: JobImage;
  runnable: Runnable[];
}

/** What a worker says when it has finished. */
export interface Finish {
  id: string;
  attempt: number;
  /** Set when the engine failed as a whole. */
  error: ItemError | undefined;
  metrics: JsonObject;
  /** Its results answer later jobs for so long; undefined is for ever. */
  cacheTtlDays: number | undefined;
}

/**
 * Ends an execution and all that follows from it, in this one transaction: items, cache entries, followers, later tasks,
 * counters, events, the job. A repeat changes nothing and says everything that is runnable.
 */
export async function finish(tx: TenantTx, { id, attempt, error, metrics, cacheTtlDays }: Finish): Promise<Ended> {
  const { job, execution } = await lockExecutionAndJob(tx, id);
  const decision = decideFinish(execution, attempt);
  if (decision === 'lease_lost') throw leaseLost(id, attempt, execution);
  if (decision === 'repeat') return { job, runnable: await aliveExecutions(tx, job) };
  return endExecution(tx, job, execution, {
    status: error === undefined ? 'finished' : 'failed',
    attempt,
    error,
    metrics,
    ran: true,
    cacheTtlDays,
  });
}

/** What catalog says when an execution's workers were lost too often. */
export interface Fail {
  id: string;
  attempt: number;
  error: ItemError;
}

/** Fails an execution and fences its leases. One that has ended stays as it is. */
export async function fail(tx: TenantTx, { id, attempt, error }: Fail): Promise<Ended> {
  const { job, execution } = await lockExecutionAndJob(tx, id);
  const decision = decideFail(execution, attempt);
  if (decision === 'lease_lost') throw leaseLost(id, attempt, execution);
  if (decision === 'already_ended') return { job, runnable: await aliveExecutions(tx, job) };
  // What lost workers staged was never finished, so nobody vouches for it.
  await dropStaged(tx, execution);
  return endExecution(tx, job, execution, { status: 'failed', attempt, error, metrics: {}, ran: false });
}

/** How an execution ends. */
export interface Ending {
  status: 'finished' | 'failed';
  attempt: number;
  error: ItemError | undefined;
  metrics: JsonObject;
  /** Whether a worker says so, who had its cores until now. */
  ran: boolean;
  cacheTtlDays?: number | undefined;
}

/** Ends an execution, locked as its job is; items without an outcome fail. */
export async function endExecution(tx: TenantTx, job: JobImage, execution: Execution, ending: Ending): Promise<Ended> {
  const { id, taskId, chunkNo } = execution;
  const { status, attempt, error, metrics } = ending;
  const task = taskIn(job, taskId);
  const ended = await endItems(tx, job, execution, missingOutcome(error), task.plan.engine);
  const endings = countStatuses(ended);
  await keepResults(
    tx,
    job,
    task,
    ended.filter((item) => item.status === 'scored'),
    ending.cacheTtlDays,
  );
  const followed = await endFollowers(tx, job, taskId, endings, id);
  applyEndings(job, taskId, addEndings(endings, followed));
  await countEnded(tx, { jobId: job.row.job_id, taskId, executionId: id, endedSeq: nextSeq(job) });
  const [took] = await tx.query<{ core_ms: number }>(
    `UPDATE task_executions SET status = $2::execution_status, attempt = $3, ended_at = now(), error_class = $4,
        error_message = $5, metrics = $6, items = $7,
        core_ms = greatest(0, coalesce(round(1000 * extract(epoch FROM now() - started_at)), 0) * $8::int)
      WHERE task_execution_id = $1 RETURNING core_ms`,
    [
      id,
      status,
      attempt,
      error?.errorClass ?? '',
      error?.errorMessage ?? '',
      JSON.stringify(metrics),
      ended.length,
      ending.ran ? task.plan.cores : 0,
    ],
  );
  const coreMs = took!.core_ms;
  job.row.core_ms += coreMs;
  job.row.saved_core_ms += Math.round((coreMs / Math.max(1, ended.length)) * (followed.cached ?? 0));
  job.events.push({
    event: `execution.${status}`,
    detail: error?.errorMessage ?? '',
    metadata: { task_execution_id: id, task_id: taskId, chunk_no: chunkNo, attempt, ...endings },
  });
  const runnable = await unblockTasks(tx, job);
  closeJob(job);
  await saveJob(tx, job);
  return { job, runnable };
}

interface EndedItem extends ScoredItem {
  status: 'scored' | 'failed';
}

/** Makes what the execution said final; items it said nothing of fail with `missing`. */
async function endItems(
  tx: TenantTx,
  job: JobImage,
  { id, jobId, taskId }: Execution,
  missing: ItemError,
  engine: string,
): Promise<EndedItem[]> {
  const endedSeq = nextSeq(job);
  const said = await joined<EndedItem>(
    tx,
    `UPDATE task_results t SET status = s.status, score = s.score, result_data = s.result_data,
        confidence_score = s.confidence_score, error_class = s.error_class, error_message = s.error_message,
        service_name = $4, ended_at = now(), ended_seq = $5
      FROM staged_results s
      WHERE s.task_execution_id = $1 AND t.task_execution_id = $1 AND t.job_id = $2 AND t.task_id = $3
        AND t.item_no = s.item_no AND t.status = 'pending'
      RETURNING t.item_no, t.status, t.input_signature, t.smiles, t.confidence_score, t.score`,
    [id, jobId, taskId, engine, endedSeq],
  );
  const unsaid = await tx.query<EndedItem>(
    `UPDATE task_results SET status = 'failed', error_class = $2, error_message = $3, service_name = $4, ended_at = now(), ended_seq = $5
      WHERE task_execution_id = $1 AND status = 'pending'
      RETURNING item_no, status, input_signature, smiles, confidence_score, score`,
    [id, missing.errorClass, missing.errorMessage, engine, endedSeq],
  );
  await tx.execute('DELETE FROM staged_results WHERE task_execution_id = $1', [id]);
  return [...said, ...unsaid];
}

function countStatuses(items: readonly EndedItem[]): Endings {
  const endings: Endings = {};
  for (const { status } of items) endings[status] = (endings[status] ?? 0) + 1;
  return endings;
}
