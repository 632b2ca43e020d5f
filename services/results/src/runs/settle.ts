import { Code, ConnectError, type CallOptions, type HandlerContext } from '@connectrpc/connect';
import { SECOND_MS } from '@mad/process';
import { callOptions } from '@mad/rpc';
import type { Context } from '../context.ts';
import { progressOf, type JobImage, type Runnable } from './job-image.ts';

/** An execution that has ended, its job as it stands, and what may run now. */
interface Settled {
  orgId: string;
  taskExecutionId: string;
  job: JobImage;
  runnable: Runnable[];
}

/** Tells catalog how a job stands: that an execution of it has ended, or may run. */
export async function tellCatalog(
  queue: Context['catalog']['queue'],
  { orgId, taskExecutionId, job, runnable }: Settled,
  options: CallOptions,
): Promise<void> {
  await queue.settleTask({ orgId, taskExecutionId, progress: progressOf(job), runnable }, options);
}

/**
 * Tells catalog that an execution has ended: after the commit, never inside a transaction. When catalog cannot be told, the
 * call fails as UNAVAILABLE though its work is done: the worker repeats it, and the repeat tells again from the rows. If
 * the worker dies too, its lease expires and the next worker's start tells it.
 */
export async function settle(context: Context, ctx: HandlerContext, settled: Settled): Promise<void> {
  const { orgId, taskExecutionId } = settled;
  const began = performance.now();
  try {
    await tellCatalog(context.catalog.queue, settled, callOptions(ctx));
    lagOf(context)?.observe({ outcome: 'ok' }, (performance.now() - began) / SECOND_MS);
  } catch (error) {
    lagOf(context)?.observe({ outcome: 'failed' }, (performance.now() - began) / SECOND_MS);
    context.logger.warn({ error, org_id: orgId, task_execution_id: taskExecutionId }, 'catalog could not be told');
    throw new ConnectError(
      'done, but catalog could not be told: repeat the call',
      Code.Unavailable,
      undefined,
      undefined,
      error,
    );
  }
}

/** How far catalog's queue is behind the tenants: a task that ended is leased until its settle arrives. */
function lagOf({ metrics }: Context) {
  return metrics?.histogram({
    name: 'settle_lag_seconds',
    help: "Time from the commit of a task's end to catalog's word that it knows, by outcome: ok, failed.",
    labelNames: ['outcome'],
  });
}
