import { Rounds } from '@mad/process';
import type { CatalogContext } from '../context.ts';
import { Attendance } from '../domain/attendance.ts';
import { cancel } from './cancel.ts';
import { failExecution } from './fail-execution.ts';
import { CANCEL, FAIL_EXECUTION, MATERIALIZE, type ExecutionMessage, type JobMessage } from './job-queues.ts';
import { materialize } from './materialize.ts';
import { reap } from './reap.ts';
import { reconcile } from './reconcile.ts';
import { refreshQuotas } from './refresh-quotas.ts';

/** Messages of one kind worked on at once. */
const CONCURRENCY = 4;
/** A job that was admitted is waited for by a person: its message is looked for as often as pg-boss allows. */
const POLL_MS = 500;

/** Works the messages of jobs until the queue is closed. */
export async function workJobQueues(context: CatalogContext): Promise<void> {
  const { boss } = context;
  const options = { concurrency: CONCURRENCY, pollMs: POLL_MS };
  await boss.work<JobMessage>(MATERIALIZE, ({ data, signal }) => materialize(context, data, signal), options);
  await boss.work<JobMessage>(CANCEL, ({ data, signal }) => cancel(context, data, signal), options);
  await boss.work<ExecutionMessage>(
    FAIL_EXECUTION,
    ({ data, signal }) => failExecution(context, data, signal),
    options,
  );
}

/**
 * Looks after the queue, at the start and every few seconds: leases that ran out, quotas that changed, jobs that fell
 * silent. Any number of processes may do it. Returns how to stop, which waits for the rounds under way.
 */
export function startRounds(context: CatalogContext): () => Promise<void> {
  const { logger, queue } = context;
  const failure = 'a round over the queue failed';
  const options = { everyMs: queue.reapMs, logger, failure };
  const attendance = new Attendance(queue);
  // By itself: workers that are lost are noticed while a job's results do not answer.
  const reaping = new Rounds(options, async () => {
    await reap(context, attendance.isFull(performance.now()) ? ['leased', 'delayed'] : ['delayed']);
    attendance.note(performance.now());
  });
  const keeping = new Rounds(options, async (signal) => {
    for (const step of [() => refreshQuotas(context), () => reconcile(context, signal)]) {
      if (signal.aborted) return;
      await step().catch((error: unknown) => logger.warn({ error }, failure));
    }
  });
  return async () => {
    await Promise.all([reaping.close(), keeping.close()]);
  };
}
