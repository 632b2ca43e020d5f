import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { uuidv7 } from '@mad/process';
import { TaskPlanSchema, type TaskPlan } from '@mad/proto/results';
import type { TenantTx } from '@mad/tenancy';
import { cacheKey, writesCache } from '../domain/cache-entry.ts';
import { addEndings } from '../domain/counters.ts';
import { jobStateWhenBegun } from '../domain/job-state.ts';
import { AWAITS_OTHER_JOB } from './blocked.ts';
import { countHits, lookUp, savedCoreMs } from './cache.ts';
import { endFollowers } from './endings.ts';
import { lockExecutionAndJob, type Execution } from './execution.ts';
import { endExecution, type Ended } from './finish.ts';
import { applyEndings, nextSeq, runnableOf, taskIn, type JobImage, type JobTask } from './job-image.ts';
import { signatureTextOf } from './plan.ts';
import { joined, planned } from './planned.ts';
import { holdOffRetention } from './retention-lock.ts';
import { saveJob } from './save-job.ts';
import { countEnded } from './statistics.ts';

/**
 * Equal items of several jobs are computed once. Before an execution begins, its items are looked up once more, for its job may
 * have waited while another one computed them; those that another job is computing just now are set aside, into an execution
 * that waits. When the other one has ended, however it did, these are looked up again, and what is still without an answer is
 * computed after all. So nobody hangs on another's job: cancelled or failed, it leaves the others their own work.
 */

/** An item that is not computed yet. */
interface OpenItem {
  item_no: number;
  input_signature: string;
}

/** What became of an execution's items. */
export interface Coalesced {
  /** To be computed. */
  free: number[];
  /** Being computed by another job. */
  awaited: number[];
}

/**
 * Answers what can be answered of an execution, and tells what another job is at; whoever calls saves the job. Executions of
 * a plan begin one after the other: of two that begin at once, the second sees the first. Call `holdOffRetention` before,
 * and before the job is locked. Undefined where the job shares nothing, or there is nobody to share with.
 */
export async function coalesce(
  tx: TenantTx,
  job: JobImage,
  task: JobTask,
  execution: Execution,
): Promise<Coalesced | undefined> {
  const { cache_policy: policy } = job.row;
  if (!writesCache(policy)) return undefined;
  await tx.query(`SELECT pg_advisory_xact_lock(hashtext('mad.coalesce'), hashtext($1))`, [computed(task.plan)]);
  if (policy !== 'use') return undefined;
  const twins = await twinsOf(tx, job, task);
  if (twins.length === 0) return undefined;
  const items = await tx.query<OpenItem>(
    `SELECT item_no, input_signature FROM task_results WHERE task_execution_id = $1 AND status = 'pending' ORDER BY item_no`,
    [execution.id],
  );
  const answered = await answer(tx, job, task, execution, items);
  const left = items.filter((item) => !answered.has(item.item_no));
  const elsewhere = await inFlight(tx, twins, left);
  const numbersOf = (some: readonly OpenItem[]): number[] => some.map((item) => item.item_no);
  return {
    free: numbersOf(left.filter((item) => !elsewhere.has(item.input_signature))),
    awaited: numbersOf(left.filter((item) => elsewhere.has(item.input_signature))),
  };
}

/** What a plan computes, as a text: equal ones give equal signatures to equal molecules. */
const computed = (plan: TaskPlan): string => cacheKey(plan.task, signatureTextOf(plan)('C'));
const computedBy = (plan: JsonValue): string => computed(fromJson(TaskPlanSchema, plan));

interface Twin {
  job_id: string;
  task_id: string;
}

/** Tasks of other jobs that compute the same and leave it to others; of those that are alive, or were when this job was made. */
async function twinsOf(tx: TenantTx, { row }: JobImage, { plan }: JobTask): Promise<Twin[]> {
  const rows = await planned<Twin & { plan: JsonValue }>(
    tx,
    `SELECT k.job_id, k.task_id, k.plan FROM (
        SELECT job_id FROM jobs WHERE status IN ('queued', 'running') AND cache_policy IN ('use', 'refresh')
        UNION SELECT job_id FROM jobs WHERE ended_at >= $2 AND cache_policy IN ('use', 'refresh')) j JOIN job_tasks k USING (job_id)
      WHERE k.job_id <> $1 AND k.plan ->> 'task' = $3 AND k.plan ->> 'engine' = $4`,
    [row.job_id, row.created_at, plan.task, plan.engine],
  );
  const own = computed(plan);
  return rows.filter((twin) => computedBy(twin.plan) === own);
}

/** Ends the items that have an answer by now, with what follows them; returns their numbers. */
async function answer(
  tx: TenantTx,
  job: JobImage,
  { taskId, plan }: JobTask,
  { id }: Execution,
  items: readonly OpenItem[],
): Promise<Set<number>> {
  const { job_id: jobId, min_confidence: minConfidence, max_age_s: maxAgeS } = job.row;
  const signatures = items.map((item) => item.input_signature);
  const found = await lookUp(tx, plan.task, signatures, { minConfidence, maxAgeS });
  const hits = items.filter((item) => found.get(item.input_signature)?.hit !== undefined);
  if (hits.length === 0) return new Set();
  const ended = { jobId, taskId, executionId: id, endedSeq: nextSeq(job) };
  const rows = await joined<{ item_no: number }>(
    tx,
    `UPDATE task_results t SET status = 'cached', score = s.score, result_data = s.result_data, confidence_score = c.confidence_score,
        service_name = s.service_name, reused_from_job_id = s.job_id, reused_from_task_id = s.task_id,
        reused_from_item_no = s.item_no, cache_miss = NULL, ended_at = now(), ended_seq = $2
      FROM unnest($3::int[], $4::text[]) AS n (item_no, cache_key) JOIN result_cache c USING (cache_key)
        JOIN task_results s ON s.job_id = c.canonical_job_id AND s.task_id = c.canonical_task_id AND s.item_no = c.canonical_item_no
      WHERE t.task_execution_id = $1 AND t.item_no = n.item_no AND t.status = 'pending' RETURNING t.item_no`,
    [
      id,
      ended.endedSeq,
      hits.map((item) => item.item_no),
      hits.map((item) => cacheKey(plan.task, item.input_signature)),
    ],
  );
  const endings = { cached: rows.length };
  const followed = await endFollowers(tx, job, taskId, endings, id);
  applyEndings(job, taskId, addEndings(endings, followed));
  await countEnded(tx, ended);
  await countHits(tx, ended);
  job.row.saved_core_ms += await savedCoreMs(tx, ended);
  job.events.push({
    event: 'execution.answered',
    detail: '',
    metadata: { task_execution_id: id, task_id: taskId, ...addEndings(endings, followed) },
  });
  return new Set(rows.map((row) => row.item_no));
}

/** The signatures, of these items, that a running execution of a twin is at. */
async function inFlight(tx: TenantTx, twins: readonly Twin[], items: readonly OpenItem[]): Promise<Set<string>> {
  if (items.length === 0) return new Set();
  const rows = await joined<{ input_signature: string }>(
    tx,
    `SELECT DISTINCT t.input_signature
      FROM unnest($1::uuid[], $2::text[]) AS n (job_id, task_id)
        JOIN task_executions e ON e.job_id = n.job_id AND e.task_id = n.task_id AND e.status = 'running'
        JOIN task_results t ON t.task_execution_id = e.task_execution_id AND t.status = 'pending'
      WHERE t.input_signature IN (SELECT unnest($3::text[]))`,
    [twins.map((twin) => twin.job_id), twins.map((twin) => twin.task_id), items.map((item) => item.input_signature)],
  );
  return new Set(rows.map((row) => row.input_signature));
}

/** Sets items of an execution aside, into one of its task that waits: its job has begun, in another's hands. */
export async function setAside(
  tx: TenantTx,
  job: JobImage,
  { id, jobId, taskId }: Execution,
  items: readonly number[],
): Promise<void> {
  const waiting = uuidv7();
  // As `AWAITS_OTHER_JOB` says.
  await tx.execute(
    `INSERT INTO task_executions (task_execution_id, job_id, task_id, chunk_no, status, queued_at)
      SELECT $1, $2, $3, max(chunk_no) + 1, 'blocked', now() FROM task_executions WHERE job_id = $2 AND task_id = $3`,
    [waiting, jobId, taskId],
  );
  await tx.execute(
    `UPDATE task_results SET task_execution_id = $2 WHERE task_execution_id = $1 AND item_no = ANY ($3::int[]) AND status = 'pending'`,
    [id, waiting, items],
  );
  const state = jobStateWhenBegun(job.row.status);
  if (state !== job.row.status) {
    job.row.status = state;
    job.events.push({ event: `job.${state}`, detail: '' });
  }
  job.events.push({
    event: 'execution.waiting',
    detail: '',
    metadata: { task_execution_id: waiting, task_id: taskId, items: items.length },
  });
}

/** The job's executions that wait for other jobs. */
export async function waitingOf(tx: TenantTx, jobId: string): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(
    `SELECT task_execution_id AS id FROM task_executions e WHERE job_id = $1 AND ${AWAITS_OTHER_JOB} ORDER BY chunk_no`,
    [jobId],
  );
  return rows.map(({ id }) => id);
}

/** The executions of other jobs that wait for what a job computed: in one execution that has ended, or in any. */
export async function waitersFor(tx: TenantTx, jobId: string, executionId: string | undefined): Promise<string[]> {
  const rows = await tx.query<{ id: string; plan: JsonValue }>(
    `SELECT e.task_execution_id AS id, k.plan
      FROM jobs j JOIN task_executions e ON e.job_id = j.job_id AND ${AWAITS_OTHER_JOB}
        JOIN job_tasks k ON k.job_id = e.job_id AND k.task_id = e.task_id
      WHERE j.status IN ('queued', 'running') AND j.job_id <> $1`,
    [jobId],
  );
  if (rows.length === 0) return [];
  const own = await tx.query<{ plan: JsonValue }>('SELECT plan FROM job_tasks WHERE job_id = $1', [jobId]);
  const computes = new Set(own.map(({ plan }) => computedBy(plan)));
  const alike = rows.filter(({ plan }) => computes.has(computedBy(plan))).map(({ id }) => id);
  if (executionId === undefined || alike.length === 0) return alike;
  const waiters = await planned<{ id: string }>(
    tx,
    `SELECT DISTINCT w.task_execution_id AS id FROM task_results w
      WHERE w.task_execution_id = ANY ($1::uuid[]) AND w.status = 'pending'
        AND w.input_signature IN (SELECT input_signature FROM task_results WHERE task_execution_id = $2)`,
    [alike, executionId],
  );
  return waiters.map(({ id }) => id);
}

/**
 * Looks at an execution that waits: it ends when everything has an answer, is queued when something is to be computed after all, and
 * waits on while another job is at all of the rest. Undefined when nothing changed.
 */
export async function wake(tx: TenantTx, id: string): Promise<Ended | undefined> {
  await holdOffRetention(tx);
  const { job, execution } = await lockExecutionAndJob(tx, id);
  if (execution.status !== 'blocked') return undefined;
  const items = await coalesce(tx, job, taskIn(job, execution.taskId), execution);
  if (items?.free.length === 0 && items.awaited.length === 0) {
    return endExecution(tx, job, execution, {
      status: 'finished',
      attempt: execution.attempt,
      error: undefined,
      metrics: {},
      ran: false,
    });
  }
  const waits = items?.free.length === 0;
  if (waits && job.events.length === 0) return undefined;
  if (!waits) {
    await tx.execute(`UPDATE task_executions SET status = 'queued', queued_at = now() WHERE task_execution_id = $1`, [
      id,
    ]);
  }
  await saveJob(tx, job);
  return { job, runnable: waits ? [] : [runnableOf(taskIn(job, execution.taskId).plan, id)] };
}
