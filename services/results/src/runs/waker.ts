import { SECOND_MS, type Logger } from '@mad/process';
import type { Tenants } from '@mad/tenancy';
import type { Context } from '../context.ts';
import { waitersFor, waitingOf, wake } from './coalesce.ts';
import type { JobFeed } from './job-feed.ts';
import { transactOnJob } from './partitions.ts';
import { tellCatalog } from './settle.ts';

/** Catalog hears of it within this time, or when it asks about the job. */
const TELL_MS = 10 * SECOND_MS;

/** What an execution that ended, or a whole job, may have kept others waiting for. */
interface Source {
  orgId: string;
  jobId: string;
  /** Undefined for all of the job's. */
  executionId?: string;
}

/**
 * Wakes executions that waited for what another job computed. It goes on beside the call that ended it; where it is cut off, or
 * catalog does not hear of it, catalog's question about a job that is silent (`reconcile`) does the same.
 */
export class Waker {
  readonly #tenants: Tenants;
  readonly #queue: Context['catalog']['queue'];
  readonly #feed: JobFeed;
  readonly #logger: Logger;
  readonly #running = new Set<Promise<void>>();

  constructor(
    { tenants, queue, feed }: { tenants: Tenants; queue: Context['catalog']['queue']; feed: JobFeed },
    logger: Logger,
  ) {
    this.#tenants = tenants;
    this.#queue = queue;
    this.#feed = feed;
    this.#logger = logger;
  }

  /** Wakes who waited for it, beside what the caller does. */
  ended(source: Source): void {
    const run = this.#wakeAll(source)
      .catch((error: unknown) =>
        this.#logger.warn({ org_id: source.orgId, job_id: source.jobId, error }, 'who waited for it was not woken'),
      )
      .finally(() => this.#running.delete(run));
    this.#running.add(run);
  }

  /** Looks at what a job waits for. Whoever asks tells catalog. */
  async look(orgId: string, jobId: string): Promise<void> {
    const waiting = await this.#tenants.read(orgId, (tx) => waitingOf(tx, jobId));
    for (const id of waiting) await this.#wake(orgId, id);
  }

  /** Resolves when nobody is being woken any more. */
  async close(): Promise<void> {
    await Promise.all(this.#running);
  }

  async #wakeAll({ orgId, jobId, executionId }: Source): Promise<void> {
    const waiting = await this.#tenants.read(orgId, (tx) => waitersFor(tx, jobId, executionId));
    for (const id of waiting) {
      const woken = await this.#wake(orgId, id);
      if (woken === undefined) continue;
      await tellCatalog(this.#queue, { orgId, taskExecutionId: id, ...woken }, { timeoutMs: TELL_MS });
    }
  }

  async #wake(orgId: string, id: string) {
    const woken = await transactOnJob(this.#tenants, orgId, (tx) => wake(tx, id));
    if (woken !== undefined) this.#feed.moved(orgId, woken.job.row.job_id);
    return woken;
  }
}
