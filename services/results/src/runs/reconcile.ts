import type { TenantTx } from '@mad/tenancy';
import { noCounters, sumOf, type Counters } from '../domain/counters.ts';
import type { WorkStatus } from '../domain/work-item.ts';
import { aliveExecutions, countersOf, lockJob, type JobImage, type Runnable } from './job-image.ts';

/** How a job stands, counted from its rows. */
export interface Reconciled {
  job: JobImage;
  counters: Counters;
  runnable: Runnable[];
  /** Tasks whose kept counters are not what their rows give; always empty unless there is a bug. */
  drifted: string[];
}

/**
 * Counts the job's items; undefined when the tenant does not know the job. Of one whose results retention dropped the kept
 * counters stand. Whoever ends items holds the job's lock, so
 * under it the count, the kept counters and the event number belong together.
 */
export async function reconcile(tx: TenantTx, jobId: string): Promise<Reconciled | undefined> {
  const job = await lockJob(tx, jobId);
  if (job === undefined) return undefined;
  // Its counters tell of items that are there no more.
  if (job.row.results_dropped_at !== null) return { job, counters: countersOf(job), runnable: [], drifted: [] };
  const rows = await tx.query<{ task_id: string; status: WorkStatus; items: number }>(
    'SELECT task_id, status, count(*)::int AS items FROM task_results WHERE job_id = $1 GROUP BY task_id, status',
    [jobId],
  );
  const counted = new Map(job.tasks.map(({ taskId }) => [taskId, noCounters()]));
  for (const { task_id: taskId, status, items } of rows) {
    const counters = counted.get(taskId)!;
    counters.requested += items;
    counters[status] += items;
  }
  const differs = (a: Counters, b: Counters): boolean =>
    (Object.keys(a) as (keyof Counters)[]).some((key) => a[key] !== b[key]);
  const drifted = job.tasks.filter(({ taskId, counters }) => differs(counters, counted.get(taskId)!));
  return {
    job,
    counters: sumOf(counted.values()),
    runnable: await aliveExecutions(tx, job),
    drifted: drifted.map(({ taskId }) => taskId),
  };
}
