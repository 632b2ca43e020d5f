import type { Tx } from '@mad/postgres';
import type { HeldLease } from '@mad/proto/catalog';
import { afterReturn, type QueuedTaskState } from '../domain/job-lease.ts';
import { LEASED_COLUMNS, type LeasedRow } from './claim.ts';
import { countMoves, lockOrgQueue, type QueueMove, type TaskShape } from './org-queue.ts';

/** The part of a lease that says which it is. */
export type LeaseKey = Pick<HeldLease, 'orgId' | 'taskExecutionId' | 'attempt'>;

/** $1 worker, $2 organizations, $3 task executions, $4 attempts: rows that are leased exactly so. */
const HELD = `catalog.task_queue t
  JOIN unnest($2::uuid[], $3::uuid[], $4::int[]) AS h (org_id, task_execution_id, attempt)
    ON t.task_execution_id = h.task_execution_id AND t.org_id = h.org_id AND t.attempt = h.attempt
      AND t.worker = $1 AND t.state = 'leased'
  JOIN catalog.jobs_meta j ON j.job_id = t.job_id`;

function keysOf(worker: string, leases: readonly LeaseKey[]): unknown[] {
  return [
    worker,
    leases.map(({ orgId }) => orgId),
    leases.map(({ taskExecutionId }) => taskExecutionId),
    leases.map(({ attempt }) => attempt),
  ];
}

/**
 * Extends a worker's leases; says which of its tasks it must stop: lost, cancelled or settled. A task whose row somebody
 * holds right now is in neither list and is asked about again. Waits for no lock, so that it never is why others wait.
 */
export async function extendLeases(
  tx: Tx,
  worker: string,
  leases: readonly LeaseKey[],
  leaseMs: number,
): Promise<{ extended: LeasedRow[]; stop: string[] }> {
  const keys = keysOf(worker, leases);
  const held = await tx.query<{ task_execution_id: string }>(
    `SELECT t.task_execution_id FROM ${HELD} WHERE j.cancel_requested_at IS NULL`,
    keys,
  );
  const ids = held.map(({ task_execution_id: id }) => id);
  const extended = await tx.query<LeasedRow>(
    `UPDATE catalog.task_queue t SET lease_expires_at = now() + $5 * interval '1 ms'
     WHERE t.task_execution_id IN (
       SELECT t.task_execution_id FROM ${HELD}
       WHERE j.cancel_requested_at IS NULL FOR NO KEY UPDATE OF t SKIP LOCKED)
     RETURNING ${LEASED_COLUMNS}`,
    [...keys, leaseMs],
  );
  const holding = new Set(ids);
  const stop = leases.map(({ taskExecutionId }) => taskExecutionId).filter((id) => !holding.has(id));
  return { extended, stop };
}

interface ReturnedRow extends TaskShape {
  task_execution_id: string;
  may_queue: boolean;
}

/** What becomes of rows whose locks the caller holds. Rows that get no state leave the queue. */
export async function moveTasks(
  tx: Tx,
  orgId: string,
  tasks: readonly (TaskShape & { task_execution_id: string; from: QueuedTaskState; to: QueuedTaskState | undefined })[],
  options: { lost: boolean; delayMs?: number },
): Promise<void> {
  for (const to of new Set(tasks.map((task) => task.to))) {
    const ids = tasks.filter((task) => task.to === to).map(({ task_execution_id: id }) => id);
    if (to === undefined) {
      await tx.execute('DELETE FROM catalog.task_queue WHERE org_id = $1 AND task_execution_id = ANY ($2::uuid[])', [
        orgId,
        ids,
      ]);
    } else {
      await tx.execute(
        `UPDATE catalog.task_queue SET state = $3, worker = NULL, lease_expires_at = NULL, losses = losses + $4,
           not_before = CASE WHEN $3 = 'delayed' THEN now() + $5 * interval '1 ms' END
         WHERE org_id = $1 AND task_execution_id = ANY ($2::uuid[])`,
        [orgId, ids, to, options.lost ? 1 : 0, options.delayMs ?? 0],
      );
    }
  }
  const moves: QueueMove[] = tasks.map(({ engine, cores, memory_mb, from, to }) => ({
    engine,
    cores,
    memory_mb,
    from,
    to,
  }));
  await countMoves(tx, orgId, moves);
}

/** Gives one organization's leases back, uncounted, not to be leased again before a delay. */
export async function returnLeases(
  tx: Tx,
  orgId: string,
  worker: string,
  leases: readonly LeaseKey[],
  delayMs: number,
): Promise<void> {
  if (!(await lockOrgQueue(tx, orgId))) return;
  const rows = await tx.query<ReturnedRow>(
    `SELECT t.task_execution_id, t.engine, t.cores, t.memory_mb, j.cancel_requested_at IS NULL AS may_queue
     FROM ${HELD} ORDER BY t.task_execution_id FOR NO KEY UPDATE OF t`,
    keysOf(worker, leases),
  );
  const tasks = rows.map(({ may_queue: mayQueue, ...row }) => {
    return { ...row, from: 'leased' as const, to: afterReturn(delayMs, mayQueue) };
  });
  await moveTasks(tx, orgId, tasks, { lost: false, delayMs });
}
