import type { HandlerContext, ServiceImpl } from '@connectrpc/connect';
import { beginSpan, SECOND_MS, sleep, traceparentOf } from '@mad/process';
import type { LeaseTasksRequest, QueueService } from '@mad/proto/catalog';
import { invalid } from '@mad/rpc';
import type { CatalogContext } from '../context.ts';
import { claimTasks, hasClaimable, type Claim, type LeasedRow } from '../jobs/claim.ts';
import { extendLeases, returnLeases, type LeaseKey } from '../jobs/leases.ts';
import { lockJob, takeOver } from '../jobs/take-over.ts';
import { leasedTaskMessage, progressOf } from './job.ts';

/** Other processes' news come by looking. */
const LOOK_MS = SECOND_MS;
/** Rows that others hold are free in a moment. */
const JITTER_MS = { from: 5, to: 20 };
/** After so many looks in a row at rows that others hold, the wait is the long one. */
const SHORT_WAITS = 50;

/** The queue of runnable task executions, shared fairly between organizations. */
export function queueService(context: CatalogContext): ServiceImpl<typeof QueueService> {
  const { database, boss, tasks, queue, signLease, tracer } = context;

  const leased = async (rows: readonly LeasedRow[], worker: string) =>
    Promise.all(
      rows.map(async (row) => {
        const { org_id: orgId, task_execution_id: taskExecutionId, attempt } = row;
        const token = await signLease({ orgId, taskExecutionId, attempt, worker }, row.lease_expires_at);
        return leasedTaskMessage(row, token);
      }),
    );

  /** The time it waited is a step of its job's trace, below which the worker goes on. */
  const withLeaseSpan = (row: LeasedRow): LeasedRow => {
    if (row.traceparent === '') return row;
    const span = beginSpan(tracer, row.traceparent, 'task queued', 'consumer', {
      startMs: row.queued_at.getTime(),
      attributes: { job_id: row.job_id, task_execution_id: row.task_execution_id, attempt: row.attempt },
    });
    span.end();
    return { ...row, traceparent: traceparentOf(span) };
  };

  const giveBack = async (worker: string, leases: readonly LeaseKey[], delayMs: number): Promise<void> => {
    for (const orgId of new Set(leases.map((lease) => lease.orgId))) {
      const own = leases.filter((lease) => lease.orgId === orgId);
      await database.asSystem((tx) => returnLeases(tx, orgId, worker, own, delayMs));
    }
    tasks.raise();
  };

  const claimOrWait = async (claim: Claim, waitMs: number, signal: AbortSignal): Promise<LeasedRow[]> => {
    const end = performance.now() + waitMs;
    for (let looks = 0; ; looks += 1) {
      const seen = tasks.count;
      const found = await database.asSystem(async (tx) => {
        const rows = await claimTasks(tx, claim, queue.leaseMs);
        return { rows, held: rows.length === 0 && (await hasClaimable(tx, claim)) };
      });
      const left = end - performance.now();
      if (found.rows.length > 0 || left <= 0 || signal.aborted || tasks.ended) return found.rows;
      if (found.held && looks < SHORT_WAITS) {
        const ms = JITTER_MS.from + Math.random() * (JITTER_MS.to - JITTER_MS.from);
        await sleep(Math.min(ms, left));
      } else {
        looks = 0;
        await tasks.wait(seen, Math.min(LOOK_MS, left), signal);
      }
    }
  };

  return {
    async leaseTasks(request: LeaseTasksRequest, ctx: HandlerContext) {
      const { worker, engines, maxTasks, waitMs, freeCores, freeMemoryMb } = request;
      const rows = await claimOrWait({ worker, engines, maxTasks, freeCores, freeMemoryMb }, waitMs, ctx.signal);
      if (rows.length > 0 && ctx.signal.aborted) {
        // Nobody is there to take them: the next worker need not wait for their leases to end.
        const keys = rows.map((row) => ({
          orgId: row.org_id,
          taskExecutionId: row.task_execution_id,
          attempt: row.attempt,
        }));
        await giveBack(worker, keys, 0);
        return {};
      }
      return { tasks: await leased(rows.map(withLeaseSpan), worker) };
    },

    async heartbeatTasks({ worker, leases }) {
      const { extended, stop } = await database.asSystem((tx) => extendLeases(tx, worker, leases, queue.leaseMs));
      return { extended: await leased(extended, worker), stop };
    },

    async returnTasks({ worker, leases, delayMs }) {
      await giveBack(worker, leases, delayMs);
      return {};
    },

    async settleTask({ orgId, taskExecutionId, progress, runnable }) {
      if (!progress) throw invalid('progress', 'is required');
      const told = { progress: progressOf(progress), runnable, leaving: { taskExecutionId } };
      const { applied, moved } = await database.asSystem(async (tx) =>
        takeOver(tx, boss, await lockJob(tx, orgId, progress.jobId), told),
      );
      if (moved) tasks.raise();
      return { applied };
    },
  };
}
