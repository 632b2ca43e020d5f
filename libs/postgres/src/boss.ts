import {
  beginSpan,
  currentSpan,
  runSpan,
  SECOND_MS,
  traceparentOf,
  uuidv7,
  type Logger,
  type Metrics,
  type Span,
  type Tracer,
} from '@mad/process';
import pg from 'pg';
import { PgBoss, type ConstructorOptions, type JobWithMetadata } from 'pg-boss';
import { clientOptions } from './client-options.ts';
import { registerQueueMetrics, type QueueDepth } from './queue-metrics.ts';
import { opened, runBatch, TRACE_KEY } from './queue-trace.ts';
import type { Tx } from './tx.ts';

const MAX_CONNECTIONS = 3;
const STOP_TIMEOUT_MS = 10 * SECOND_MS;
const DEFAULT_RETRY_LIMIT = 10;
const DEFAULT_RETRY_DELAY_MS = SECOND_MS;
const DEFAULT_RETRY_DELAY_MAX_MS = 60 * SECOND_MS;
const DEFAULT_POLL_MS = SECOND_MS;

export interface QueueOptions {
  /** Attempts after the first: 10. */
  retryLimit?: number;
  /** Before the first retry; doubles with jitter up to `retryDelayMaxMs`: 1 s … 60 s. Whole seconds. */
  retryDelayMs?: number;
  retryDelayMaxMs?: number;
  /** A message still being worked on after that is given to another: 15 min. */
  expireMs?: number;
  /** The queue that takes messages whose attempts are used up. It must be listed before this one. */
  deadLetter?: string;
}

export interface BossOptions {
  /** The service's login. */
  url: string;
  /** The schema `bossInstallSql` was applied to. */
  schema: string;
  logger: Logger;
  /** The queues this service owns, made or brought to these options at start. */
  queues: Readonly<Record<string, QueueOptions>>;
  /** Where the spans of deliveries go. */
  tracer?: Tracer;
  metrics?: Metrics;
}

export interface SendOptions {
  /** While a message with this key waits in the queue, another is not added. */
  key?: string;
  /** Not before this long from now. */
  delayMs?: number;
  priority?: number;
  /** The trace the message belongs to; that of the sender unless said otherwise. */
  traceparent?: string;
}

/** One delivery of a message. A message may be delivered more than once: handlers are idempotent. */
export interface BossJob<D> {
  id: string;
  data: D;
  /** 1 at the first delivery. */
  attempt: number;
  /** True when a failure now sends it to the dead letter queue. */
  last: boolean;
  /** Aborts when the delivery expires or the service stops. */
  signal: AbortSignal;
}

export interface WorkOptions {
  /** Messages worked on at once: 1. */
  concurrency?: number;
  /** How often an empty queue is looked at: 1 s, at least 500 ms. */
  pollMs?: number;
}

/** The message queue of one service. */
export interface Boss {
  /** Adds a message inside the caller's transaction: it exists if and only if that commits. Returns undefined when `key` is waiting already. */
  send(tx: Tx, queue: string, data: object, options?: SendOptions): Promise<string | undefined>;
  /** Calls `handler` for each message; what it throws is logged and retried. Ends with `close`. */
  work<D extends object>(
    queue: string,
    handler: (job: BossJob<D>) => Promise<void>,
    options?: WorkOptions,
  ): Promise<void>;
  /** Like `work`, with as many messages at once as wait; what `handler` throws is logged and all of them are retried. */
  workBatch<D extends object>(
    queue: string,
    handler: (jobs: BossJob<D>[]) => Promise<void>,
    options: { batchSize: number; pollMs?: number },
  ): Promise<void>;
  /** Sends a message by the clock (cron, UTC): once, however many processes serve. */
  schedule(queue: string, cron: string, data?: object): Promise<void>;
  /** Messages waiting, being worked on and failed. */
  depth(queue: string): Promise<{ waiting: number; active: number; failed: number }>;
  /** Lets handlers at work finish (10 s at most) and closes the connections. */
  close(): Promise<void>;
}

const seconds = (ms: number): number => Math.max(1, Math.round(ms / SECOND_MS));

function pgBossQueue(options: QueueOptions) {
  return {
    retryLimit: options.retryLimit ?? DEFAULT_RETRY_LIMIT,
    retryDelay: seconds(options.retryDelayMs ?? DEFAULT_RETRY_DELAY_MS),
    retryDelayMax: seconds(options.retryDelayMaxMs ?? DEFAULT_RETRY_DELAY_MAX_MS),
    retryBackoff: true,
    ...(options.expireMs === undefined ? {} : { expireInSeconds: seconds(options.expireMs) }),
    ...(options.deadLetter === undefined ? {} : { deadLetter: options.deadLetter }),
  };
}

/**
 * Opens pg-boss on a schema that a migration installed: the login neither makes nor changes tables. Makes the queues.
 * Throws when the schema is missing or of another version.
 */
export async function openBoss({ url, schema, logger, queues, tracer, metrics }: BossOptions): Promise<Boss> {
  const { host, port, user, password, database, ssl } = clientOptions(url);
  const boss = new PgBoss({
    ...({ host, port, user, password, database, ssl } as ConstructorOptions),
    schema,
    application_name: `mad-${schema}`,
    max: MAX_CONNECTIONS,
    migrate: false,
    createSchema: false,
    // Rebuilding an index is its owner's right, and this login owns nothing.
    reindex: false,
    registerInstance: false,
  });
  boss.on('error', (error) => logger.error({ err: error }, 'pg-boss'));
  boss.on('warning', (warning) => logger.warn({ warning: warning.message }, 'pg-boss'));
  await boss.start();
  const deadLetters = new Set(Object.values(queues).map(({ deadLetter }) => deadLetter));
  for (const [name, options] of Object.entries(queues)) {
    // "short" refuses a second waiting message of the same key; a dead letter queue refuses none.
    const policy = deadLetters.has(name) ? 'standard' : 'short';
    await boss.createQueue(name, { policy, ...pgBossQueue(options) });
    await boss.updateQueue(name, pgBossQueue(options));
  }

  const delivery = (queue: string, traceparent: string | undefined): Span =>
    beginSpan(tracer, traceparent, `queue ${queue}`, 'consumer');

  const depth = async (): Promise<QueueDepth[]> => {
    // pg-boss's own statistics are up to a minute old.
    const { rows } = await boss.getDb().executeSql(
      `SELECT q.name AS queue, count(j.id) FILTER (WHERE state IN ('created', 'retry'))::int AS waiting,
         count(j.id) FILTER (WHERE state = 'active')::int AS active,
         count(j.id) FILTER (WHERE state = 'failed')::int AS failed,
         coalesce(extract(epoch FROM now() - min(j.start_after) FILTER (WHERE state IN ('created', 'retry'))), 0)::float8
           AS oldest_seconds
       FROM unnest($1::text[]) AS q (name) LEFT JOIN ${pg.escapeIdentifier(schema)}.job j ON j.name = q.name
       GROUP BY q.name`,
      [Object.keys(queues)],
    );
    return rows as QueueDepth[];
  };
  if (metrics) registerQueueMetrics(metrics, depth);

  return {
    async send(tx, queue, data, { key, delayMs, priority, traceparent } = {}) {
      const db = {
        executeSql: async (sql: string, values?: unknown[]) => tx.client.query(sql, values as unknown[]),
      };
      const span = currentSpan();
      const trace = traceparent || (span && traceparentOf(span));
      const id = await boss.send(queue, trace ? { ...data, [TRACE_KEY]: trace } : data, {
        db,
        // Messages without a key of their own must not count as one.
        singletonKey: key ?? uuidv7(),
        ...(delayMs === undefined ? {} : { startAfter: new Date(Date.now() + delayMs) }),
        ...(priority === undefined ? {} : { priority }),
      });
      return id ?? undefined;
    },
    async work<D extends object>(
      queue: string,
      handler: (job: BossJob<D>) => Promise<void>,
      { concurrency = 1, pollMs = DEFAULT_POLL_MS }: WorkOptions = {},
    ) {
      const options = {
        includeMetadata: true as const,
        batchSize: 1,
        localConcurrency: concurrency,
        pollingIntervalSeconds: pollMs / SECOND_MS,
      };
      await boss.work<D, void, typeof options>(queue, options, async (jobs: JobWithMetadata<D>[]) => {
        for (const job of jobs) {
          const attempt = job.retryCount + 1;
          const last = job.retryCount >= job.retryLimit;
          try {
            const { data, traceparent } = opened(job.data);
            const span = delivery(queue, traceparent);
            span.set({ attempt });
            await runSpan(span, () => handler({ id: job.id, data, attempt, last, signal: job.signal }));
          } catch (error) {
            logger[last ? 'error' : 'warn']({ err: error, queue, job: job.id, attempt }, 'a message failed');
            throw error;
          }
        }
      });
    },
    async workBatch<D extends object>(
      queue: string,
      handler: (jobs: BossJob<D>[]) => Promise<void>,
      { batchSize, pollMs = DEFAULT_POLL_MS }: { batchSize: number; pollMs?: number },
    ) {
      const options = {
        includeMetadata: true as const,
        batchSize,
        // A full batch means that more may wait: fetched at once, not at the next look.
        burstWhenBatchFull: true,
        pollingIntervalSeconds: pollMs / SECOND_MS,
      };
      await boss.work<D, void, typeof options>(queue, options, async (jobs: JobWithMetadata<D>[]) => {
        try {
          const messages = jobs.map((job) => ({ ...job, ...opened(job.data) }));
          await runBatch(
            delivery,
            queue,
            messages.map(({ traceparent }) => traceparent),
            () =>
              handler(
                messages.map(({ id, data, retryCount, retryLimit, signal }) => {
                  return { id, data, attempt: retryCount + 1, last: retryCount >= retryLimit, signal };
                }),
              ),
          );
        } catch (error) {
          logger.warn({ err: error, queue, jobs: jobs.length }, 'a batch of messages failed');
          throw error;
        }
      });
    },
    async schedule(queue, cron, data = {}) {
      await boss.schedule(queue, cron, data, { tz: 'UTC' });
    },
    async depth(queue) {
      const { waiting, active, failed } = (await depth()).find((one) => one.queue === queue)!;
      return { waiting, active, failed };
    },
    async close() {
      await boss.stop({ graceful: true, timeout: STOP_TIMEOUT_MS });
    },
  };
}
