import type { TenantTx } from '@mad/tenancy';
import { addEndings, endingsIn, type Endings } from '../domain/counters.ts';
import { unblockedStatus } from '../domain/execution.ts';
import { blocksDownstream, followerStatus, WORK_STATUSES, type EndedStatus } from '../domain/work-item.ts';
import { dropObjectsOfExecutions } from '../objects/object-notes.ts';
import { AWAITS_EARLIER_TASK } from './blocked.ts';
import type { Execution } from './execution.ts';
import { applyEndings, nextSeq, runnableOf, type JobImage, type JobTask, type Runnable } from './job-image.ts';
import { joined, planned } from './planned.ts';

const BLOCKING = WORK_STATUSES.filter(blocksDownstream);

/**
 * Ends the items that waited for an equal one of their task: the followers of those that ended as `endings` says. With
 * an execution only the followers of its items, else of all of the task.
 */
export async function endFollowers(
  tx: TenantTx,
  job: JobImage,
  taskId: string,
  endings: Endings,
  executionId?: string,
): Promise<Endings> {
  let ended: Endings = {};
  for (const leader of Object.keys(endings) as EndedStatus[]) {
    const status = followerStatus(leader);
    const [{ count } = { count: 0 }] = await joined<{ count: number }>(
      tx,
      `WITH ended AS (UPDATE task_results f SET status = $4::work_status, score = l.score, result_data = l.result_data,
          confidence_score = l.confidence_score, error_class = l.error_class, error_message = l.error_message,
          service_name = l.service_name, ended_at = now(), ended_seq = $6,
          reused_from_job_id = CASE WHEN $4::work_status = 'cached' THEN coalesce(l.reused_from_job_id, l.job_id) END,
          reused_from_task_id = CASE WHEN $4::work_status = 'cached' THEN coalesce(l.reused_from_task_id, l.task_id) END,
          reused_from_item_no = CASE WHEN $4::work_status = 'cached' THEN coalesce(l.reused_from_item_no, l.item_no) END
        FROM task_results l
        WHERE f.job_id = $1 AND f.task_id = $2 AND f.status = 'pending' AND f.follows_item_no IS NOT NULL
          AND ($5::uuid IS NULL OR f.follows_item_no = ANY (ARRAY(
            SELECT item_no FROM task_results WHERE task_execution_id = $5 AND status = $3::work_status)))
          AND l.job_id = f.job_id AND l.task_id = f.task_id AND l.item_no = f.follows_item_no AND l.status = $3::work_status
          AND ($5::uuid IS NULL OR l.task_execution_id = $5) RETURNING 1)
        SELECT count(*)::int AS count FROM ended`,
      [job.row.job_id, taskId, leader, status, executionId ?? null, nextSeq(job)],
    );
    if (count > 0) ended = addEndings(ended, { [status]: count });
  }
  return ended;
}

/**
 * Lets the tasks begin whose earlier tasks have ended: their items without a usable upstream are skipped, their
 * executions queued. Returns what became runnable.
 */
export async function unblockTasks(tx: TenantTx, job: JobImage): Promise<Runnable[]> {
  const runnable: Runnable[] = [];
  for (const task of job.tasks) {
    const upstream = job.tasks.filter(({ taskId }) => task.plan.dependsOn.includes(taskId));
    const waits = upstream.some(({ counters }) => counters.pending > 0);
    if (upstream.length === 0 || waits || task.counters.pending === 0) continue;
    runnable.push(...(await unblock(tx, job, task, upstream)));
  }
  return runnable;
}

async function unblock(tx: TenantTx, job: JobImage, task: JobTask, upstream: readonly JobTask[]): Promise<Runnable[]> {
  const { taskId, plan } = task;
  const blocked = await tx.execute(
    `SELECT 1 FROM task_executions e WHERE e.job_id = $1 AND e.task_id = $2 AND ${AWAITS_EARLIER_TASK} LIMIT 1`,
    [job.row.job_id, taskId],
  );
  if (blocked === 0) return [];
  const skipped = await skipItems(tx, job, taskId, upstream);
  applyEndings(job, taskId, skipped);

  const executions = await tx.query<{ task_execution_id: string; pending: number }>(
    `SELECT e.task_execution_id, count(t.item_no)::int AS pending
      FROM task_executions e
        LEFT JOIN task_results t ON t.task_execution_id = e.task_execution_id AND t.status = 'pending'
      WHERE e.job_id = $1 AND e.task_id = $2 AND ${AWAITS_EARLIER_TASK}
      GROUP BY e.task_execution_id, e.chunk_no ORDER BY e.chunk_no`,
    [job.row.job_id, taskId],
  );
  const ids = executions.map(({ task_execution_id: id }) => id);
  const statuses = executions.map(({ pending }) => unblockedStatus(pending));
  await tx.execute(
    `UPDATE task_executions e SET status = n.status, queued_at = now(),
        ended_at = CASE WHEN n.status = 'finished' THEN now() END
      FROM unnest($1::uuid[], $2::execution_status[]) AS n (id, status) WHERE e.task_execution_id = n.id`,
    [ids, statuses],
  );
  const queued = ids.filter((_id, index) => statuses[index] === 'queued');
  job.events.push({
    event: 'task.unblocked',
    detail: '',
    metadata: { task_id: taskId, executions: queued.length, skipped: endingsIn(skipped) },
  });
  return queued.map((id) => runnableOf(plan, id));
}

async function skipItems(tx: TenantTx, job: JobImage, taskId: string, upstream: readonly JobTask[]): Promise<Endings> {
  if (upstream.every(({ counters }) => counters.failed + counters.skipped + counters.cancelled === 0)) return {};
  const [{ skipped } = { skipped: 0 }] = await joined<{ skipped: number }>(
    tx,
    `WITH ended AS (UPDATE task_results t SET status = 'skipped', ended_at = now()
      WHERE t.job_id = $1 AND t.task_id = $2 AND t.status = 'pending' AND EXISTS (
        SELECT 1 FROM task_results u WHERE u.job_id = t.job_id AND u.task_id = ANY ($3::text[]) AND u.item_no = t.item_no
          AND u.status = ANY ($4::work_status[])) RETURNING 1)
      SELECT count(*)::int AS skipped FROM ended`,
    [job.row.job_id, taskId, upstream.map((task) => task.taskId), BLOCKING],
  );
  if (skipped === 0) return {};
  return addEndings({ skipped }, await endFollowers(tx, job, taskId, { skipped }));
}

/** Forgets what a running execution has said, poses too. */
export async function dropStaged(tx: TenantTx, { id, jobId, taskId }: Execution): Promise<void> {
  const staged = await tx.query<{ item_no: number }>(
    'DELETE FROM staged_results WHERE task_execution_id = $1 RETURNING item_no',
    [id],
  );
  await dropPoses(tx, { jobId, taskId }, staged);
  await dropObjectsOfExecutions(tx, [id]);
}

/** Removes the poses of items that were staged and never finished. */
export async function dropPoses(
  tx: TenantTx,
  { jobId, taskId }: Pick<Execution, 'jobId' | 'taskId'>,
  items: readonly { item_no: number }[],
): Promise<void> {
  if (items.length === 0) return;
  await planned(tx, 'DELETE FROM docking_results WHERE job_id = $1 AND task_id = $2 AND item_no = ANY ($3::int[])', [
    jobId,
    taskId,
    items.map((item) => item.item_no),
  ]);
}
