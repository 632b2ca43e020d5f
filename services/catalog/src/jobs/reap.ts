import type { Tx } from '@mad/postgres';
import type { CatalogContext } from '../context.ts';
import { afterLoss } from '../domain/job-lease.ts';
import { FAIL_EXECUTION } from './job-queues.ts';
import { moveTasks } from './leases.ts';
import { lockOrgQueue, type TaskShape } from './org-queue.ts';

/** Tasks of one organization that are moved in one transaction. */
const BATCH = 1_000;

/** Leases that ran out, delays that are over. */
export type DueState = 'leased' | 'delayed';

/** $1: states that are looked at. */
const DUE = `t.state = ANY ($1) AND coalesce(t.lease_expires_at, t.not_before) <= now()`;

/** What the reaper works with. */
export type ReapContext = Pick<CatalogContext, 'database' | 'boss' | 'tasks' | 'logger' | 'metrics'>;

interface DueRow extends TaskShape {
  task_execution_id: string;
  state: DueState;
  losses: number;
  may_queue: boolean;
  traceparent: string;
}

/**
 * Makes tasks ready again whose lease ran out or whose delay is over, as far as their `states` are asked for; those whose
 * workers were lost too often are failed by a message. Every process may do it at any time: the organization's row decides
 * who does. Returns how many moved.
 */
export async function reap(context: ReapContext, states: readonly DueState[]): Promise<number> {
  const { database } = context;
  const due = await database.asSystem((tx) =>
    tx.query<{ org_id: string }>(`SELECT DISTINCT t.org_id FROM catalog.task_queue t WHERE ${DUE}`, [states]),
  );
  let moved = 0;
  for (const { org_id: orgId } of due) {
    moved += await database.asSystem((tx) => reapOrganization(tx, context, orgId, states));
  }
  if (moved > 0) context.tasks.raise();
  return moved;
}

async function reapOrganization(
  tx: Tx,
  { boss, logger, metrics }: ReapContext,
  orgId: string,
  states: readonly DueState[],
): Promise<number> {
  await lockOrgQueue(tx, orgId);
  const rows = await tx.query<DueRow>(
    `SELECT t.task_execution_id, t.engine, t.cores, t.memory_mb, t.state, t.losses, t.traceparent,
       j.cancel_requested_at IS NULL AS may_queue
     FROM catalog.task_queue t JOIN catalog.jobs_meta j ON j.job_id = t.job_id
     WHERE t.org_id = $2 AND ${DUE} ORDER BY t.task_execution_id LIMIT ${BATCH} FOR NO KEY UPDATE OF t`,
    [states, orgId],
  );
  const lost = rows
    .filter(({ state }) => state === 'leased')
    .map((row) => ({ ...row, from: row.state, to: afterLoss(row.losses + 1, row.may_queue) }));
  const waited = rows
    .filter(({ state }) => state === 'delayed')
    .map((row) => ({ ...row, from: row.state, to: row.may_queue ? ('ready' as const) : undefined }));
  await moveTasks(tx, orgId, lost, { lost: true });
  await moveTasks(tx, orgId, waited, { lost: false });
  const lostLeases = metrics?.counter({
    name: 'task_leases_lost_total',
    help: 'Leases that ran out without a word of their worker.',
    labelNames: ['engine'],
  });
  for (const { engine } of lost) lostLeases?.inc({ engine });
  for (const { task_execution_id: id, to, losses, traceparent } of lost) {
    logger.warn({ org_id: orgId, task_execution_id: id, losses: losses + 1 }, 'a worker was lost');
    if (to === 'failing') {
      const message = { org_id: orgId, task_execution_id: id };
      await boss.send(tx, FAIL_EXECUTION, message, { key: id, traceparent });
    }
  }
  return rows.length;
}
