import { backoff, beginSpan, inSpan, SECOND_MS, sleep } from '@mad/process';
import type { WorkerContext } from './context.ts';
import { admit, freeResources } from './domain/admission.ts';
import { HeldTask } from './leased-task.ts';
import { runTask, type TaskEnd } from './run-task.ts';

/** How long a worker with nothing to do waits for a task in one call. */
const IDLE_WAIT_MS = 15 * SECOND_MS;
/** While tasks run, what is free changes: ask again soon. */
const BUSY_WAIT_MS = SECOND_MS;
const RETRY = { baseMs: 100, maxMs: 5_000 };
/** A task of a suspended organization is not leased again sooner. */
const SUSPENDED_DELAY_MS = 10 * SECOND_MS;
/** How much longer than its own wait a call for tasks may take. */
const GRACE_MS = 5 * SECOND_MS;

/** A worker's loop, running until it is closed. */
export interface LeaseLoop {
  /** Stops leasing, stops what runs, gives its leases back uncounted. */
  close(): Promise<void>;
}

/** Leases tasks for the worker's engines as long as cores and memory are free, and runs them. */
export function leaseLoop(context: WorkerContext): LeaseLoop {
  const { config, queue, logger, engines, metrics, tracer } = context;
  const running = new Map<HeldTask, Promise<void>>();
  const stopping = new AbortController();
  const ends = metrics?.counter({
    name: 'worker_tasks_total',
    help: 'Tasks by engine and end.',
    labelNames: ['engine', 'end'],
  });
  metrics?.gauge({
    name: 'worker_running_tasks',
    help: 'Tasks that run now.',
    collect() {
      this.set(running.size);
    },
  });

  const giveBack = async (tasks: readonly HeldTask[], delayMs: number) => {
    if (tasks.length === 0) return;
    try {
      await queue.returnTasks(
        { worker: config.name, leases: tasks.map((task) => task.held), delayMs },
        { timeoutMs: GRACE_MS },
      );
    } catch (error) {
      // The leases end by themselves; they are only counted as lost then.
      logger.warn({ error, tasks: tasks.length }, 'leases could not be given back');
    }
  };

  const run = (task: HeldTask) => {
    const { jobId: job_id, taskExecutionId: task_execution_id, attempt, engine } = task;
    const attributes = { job_id, task_execution_id, attempt, engine, worker: config.name };
    const span = beginSpan(tracer, task.traceparent, 'task', 'consumer', { attributes });
    return inSpan(span, async () => {
      const end = await runToEnd(task);
      span.set({ end, items: task.itemsDone });
      span.end(end === 'finished' ? undefined : end);
    });
  };

  const runToEnd = async (task: HeldTask): Promise<TaskEnd> => {
    const began = performance.now();
    const end: TaskEnd = await runTask(context, task);
    if (end === 'stopping' || end === 'suspended') await giveBack([task], end === 'suspended' ? SUSPENDED_DELAY_MS : 0);
    ends?.inc({ engine: task.engine, end });
    const { orgId: org_id, jobId: job_id, taskExecutionId: task_execution_id, attempt, itemsDone: items } = task;
    logger.info(
      { org_id, job_id, task_execution_id, attempt, items, end, ms: Math.round(performance.now() - began) },
      'task',
    );
    return end;
  };

  const leaseOnce = async () => {
    const free = freeResources(config.resources, running.keys());
    if (free.cores < 1 || free.memoryMb < 1) {
      return Promise.race(running.values());
    }
    const waitMs = running.size === 0 ? IDLE_WAIT_MS : BUSY_WAIT_MS;
    const { tasks } = await queue.leaseTasks(
      {
        worker: config.name,
        engines: [...engines.keys()],
        maxTasks: Math.min(free.cores, 100),
        waitMs,
        freeCores: free.cores,
        freeMemoryMb: free.memoryMb,
      },
      { signal: stopping.signal, timeoutMs: waitMs + GRACE_MS },
    );
    const held = tasks.map((lease) => new HeldTask(lease));
    // Closing has stopped what ran by then; what arrives in that moment must not begin.
    if (stopping.signal.aborted) return giveBack(held, 0);
    const { admitted, refused } = admit(held, freeResources(config.resources, running.keys()));
    for (const task of admitted)
      running.set(
        task,
        run(task).finally(() => running.delete(task)),
      );
    return giveBack(refused, 0);
  };

  const looping = (async () => {
    for (let failures = 0; !stopping.signal.aborted;) {
      try {
        await leaseOnce();
        failures = 0;
      } catch (error) {
        if (stopping.signal.aborted) break;
        if (failures === 0) logger.warn({ error }, 'no tasks can be leased');
        await sleep(backoff((failures += 1), RETRY), stopping.signal).catch(() => undefined);
      }
    }
  })();

  let beating: Promise<void> | undefined;
  const beat = async () => {
    const tasks = [...running.keys()];
    if (tasks.length === 0) return;
    try {
      const request = { worker: config.name, leases: tasks.map((task) => task.held) };
      const { extended, stop } = await queue.heartbeatTasks(request, { timeoutMs: config.heartbeatMs });
      for (const task of tasks) {
        const lease = extended.find(
          (one) => one.taskExecutionId === task.taskExecutionId && one.attempt === task.attempt,
        );
        if (lease) task.renew(lease);
        else if (stop.includes(task.taskExecutionId)) task.stop('lost');
      }
    } catch (error) {
      logger.warn({ error, tasks: tasks.length }, 'a heartbeat failed');
    }
    // A lease that could not be extended is somebody else's from its end on.
    for (const task of tasks) if (Date.now() >= task.leaseEndsAt) task.stop('lost');
  };
  const pulse = setInterval(() => {
    beating ??= beat().finally(() => (beating = undefined));
  }, config.heartbeatMs);

  return {
    async close() {
      stopping.abort();
      for (const task of running.keys()) task.stop('stopping');
      await looping;
      await Promise.all(running.values());
      clearInterval(pulse);
      await beating;
    },
  };
}
