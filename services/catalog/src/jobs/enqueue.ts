import type { Tx } from '@mad/postgres';
import { spanned } from '@mad/process';
import type { RunnableTask } from '@mad/proto/catalog';
import type { QueuedTaskState } from '../domain/job-lease.ts';
import { countMoves, type QueueMove, type TaskShape } from './org-queue.ts';

/** A task that was in the queue. */
interface RemovedTask extends TaskShape {
  state: QueuedTaskState;
}

/**
 * Queues what may run, each task execution once. The caller holds the organization's lock and has looked at the job.
 * Returns how many were not there before.
 */
export async function enqueue(
  tx: Tx,
  job: { orgId: string; jobId: string; priority: number; traceparent: string },
  runnable: readonly Pick<RunnableTask, 'taskExecutionId' | 'engine' | 'cores' | 'memoryMb'>[],
): Promise<number> {
  if (runnable.length === 0) return 0;
  return spanned('enqueue', 'producer', { job_id: job.jobId, tasks: runnable.length }, () =>
    insertTasks(tx, job, runnable),
  );
}

async function insertTasks(
  tx: Tx,
  job: { orgId: string; jobId: string; priority: number; traceparent: string },
  runnable: readonly Pick<RunnableTask, 'taskExecutionId' | 'engine' | 'cores' | 'memoryMb'>[],
): Promise<number> {
  const added = await tx.query<TaskShape>(
    `INSERT INTO catalog.task_queue (task_execution_id, org_id, job_id, engine, cores, memory_mb, priority, traceparent)
     SELECT id, $1, $2, engine, cores, memory_mb, $3, $8
     FROM unnest($4::uuid[], $5::text[], $6::int[], $7::int[]) AS r (id, engine, cores, memory_mb)
     ON CONFLICT (task_execution_id) DO NOTHING RETURNING engine, cores, memory_mb`,
    [
      job.orgId,
      job.jobId,
      job.priority,
      runnable.map(({ taskExecutionId }) => taskExecutionId),
      runnable.map(({ engine }) => engine),
      runnable.map(({ cores }) => cores),
      runnable.map(({ memoryMb }) => memoryMb),
      job.traceparent,
    ],
  );
  const moves: QueueMove[] = added.map((task) => ({ ...task, to: 'ready' }));
  await countMoves(tx, job.orgId, moves);
  return added.length;
}

/** Which of a job's tasks leave the queue. */
export type Leaving =
  | { taskExecutionId: string }
  /** All but those that a worker holds: it is told at its next heartbeat. */
  | 'not leased'
  | 'all'
  /** All that were queued before a time and are not among these. */
  | { before: Date; keep: readonly string[] };

function condition(leaving: Leaving): { sql: string; params: unknown[] } {
  if (leaving === 'all') return { sql: 'true', params: [] };
  if (leaving === 'not leased') return { sql: `state <> 'leased'`, params: [] };
  if ('taskExecutionId' in leaving) return { sql: 'task_execution_id = $3', params: [leaving.taskExecutionId] };
  return {
    sql: 'queued_at < $3 AND NOT task_execution_id = ANY ($4::uuid[])',
    params: [leaving.before, leaving.keep],
  };
}

/**
 * Takes tasks of a job out of the queue. The caller holds the organization's lock. Returns whether the organization can
 * be served now and could not before.
 */
export async function dequeue(tx: Tx, orgId: string, jobId: string, leaving: Leaving): Promise<boolean> {
  const { sql, params } = condition(leaving);
  const removed = await tx.query<RemovedTask>(
    `DELETE FROM catalog.task_queue WHERE org_id = $1 AND job_id = $2 AND ${sql}
     RETURNING engine, cores, memory_mb, state`,
    [orgId, jobId, ...params],
  );
  const moves: QueueMove[] = removed.map(({ state, ...task }) => ({ ...task, from: state }));
  return countMoves(tx, orgId, moves);
}
