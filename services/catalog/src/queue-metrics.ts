import { JOB_STATES } from './domain/job-progress.ts';
import type { CatalogContext } from './context.ts';

interface QueueRow {
  engine: string;
  ready: number;
  leased: number;
  delayed: number;
  failing: number;
  oldest_seconds: number;
}

/** What is in the queue by engine; organizations are summed up, so the number of series follows the engines alone. */
const QUEUE_SQL = `
  SELECT engine, count(*) FILTER (WHERE state = 'ready')::int AS ready, count(*) FILTER (WHERE state = 'leased')::int AS leased,
    count(*) FILTER (WHERE state = 'delayed')::int AS delayed, count(*) FILTER (WHERE state = 'failing')::int AS failing,
    coalesce(extract(epoch FROM now() - min(queued_at) FILTER (WHERE state = 'ready')), 0)::float8 AS oldest_seconds
  FROM catalog.task_queue GROUP BY engine`;

/** Open jobs by state, and how long the one that is silent longest has been silent. */
const JOBS_SQL = `
  SELECT status, count(*)::int AS jobs, coalesce(extract(epoch FROM now() - min(checked_at)), 0)::float8 AS silent_seconds
  FROM catalog.jobs_meta WHERE status IN ('pending', 'queued', 'running') GROUP BY status`;

const OPEN_STATES = JOB_STATES.filter((state) => ['pending', 'queued', 'running'].includes(state));

/** Gauges over the queue of tasks and over open jobs, counted when metrics are read. */
export function registerQueueMetrics({ database, metrics }: Pick<CatalogContext, 'database' | 'metrics'>): void {
  if (metrics === undefined) return;
  const oldest = metrics.gauge({
    name: 'task_queue_oldest_seconds',
    help: 'How long the task that is ready longest has been in the queue, by engine.',
    labelNames: ['engine'],
  });
  const tasks = metrics.gauge({
    name: 'task_queue_tasks',
    help: 'Task executions in the queue by engine and state: ready, leased, delayed, failing.',
    labelNames: ['engine', 'state'],
    async collect() {
      const rows = await database.asSystem((tx) => tx.query<QueueRow>(QUEUE_SQL));
      tasks.reset();
      oldest.reset();
      for (const { engine, oldest_seconds: seconds, ...states } of rows) {
        for (const [state, count] of Object.entries(states)) tasks.set({ engine, state }, count);
        oldest.set({ engine }, seconds);
      }
    },
  });
  const silent = metrics.gauge({
    name: 'jobs_silent_seconds',
    help: 'How long nothing was heard of the open job that is silent longest.',
  });
  const jobs = metrics.gauge({
    name: 'jobs_open',
    help: 'Jobs that have not ended, by state.',
    labelNames: ['state'],
    async collect() {
      const rows = await database.asSystem((tx) =>
        tx.query<{ status: string; jobs: number; silent_seconds: number }>(JOBS_SQL),
      );
      for (const state of OPEN_STATES) jobs.set({ state }, rows.find(({ status }) => status === state)?.jobs ?? 0);
      silent.set(Math.max(0, ...rows.map(({ silent_seconds: seconds }) => seconds)));
    },
  });
}
