import { backoff, SECOND_MS, sleep } from '@mad/process';
import { reasonOf, retryAfterMsOf } from '@mad/rpc';
import type { Tenants, TenantTx } from '@mad/tenancy';
import type { JobEventRow } from '../db/entities/job.ts';
import { isEnded } from '../domain/job-state.ts';
import type { JobFeed } from './job-feed.ts';
import { readEvents } from './job-events.ts';
import { requireJob, type JobImage } from './job-image.ts';

/** Rows are looked at this often even when nobody says that the job moved: another process may, unheard. */
const POLL_MS = SECOND_MS;
/** While other processes are heard: a hint may be lost all the same. */
const SAFETY_POLL_MS = 12 * SECOND_MS;
/** Events of one reading, and events kept for watchers that are no further behind. */
const EVENTS = 500;
/** A house that is full is asked again later and later, beyond what it says itself. */
const BUSY = { baseMs: 100, maxMs: 5 * SECOND_MS };

/** A job as it was read last. */
export interface JobView {
  row: JobImage['row'];
  /** The newest events: those after `after`, up to `through`. */
  events: readonly JobEventRow[];
  after: number;
  through: number;
}

/** The jobs that are watched in this process. */
export class JobWatches {
  readonly #tenants: Tenants;
  readonly #feed: JobFeed;
  readonly #jobs = new Map<string, JobWatch>();

  constructor(tenants: Tenants, feed: JobFeed) {
    this.#tenants = tenants;
    this.#feed = feed;
  }

  /** The job's watch, shared by all its watchers. Each leaves it once. */
  join(orgId: string, jobId: string): JobWatch {
    const key = `${orgId}/${jobId}`;
    let watch = this.#jobs.get(key);
    if (watch === undefined || watch.isOver) {
      const made: JobWatch = new JobWatch({ tenants: this.#tenants, feed: this.#feed }, orgId, jobId, () => {
        if (this.#jobs.get(key) === made) this.#jobs.delete(key);
      });
      watch = made;
      this.#jobs.set(key, watch);
    }
    watch.watchers += 1;
    return watch;
  }
}

/**
 * Reads one job for all who watch it here, one reading at a time, when it moves and now and then. Watchers take what is new
 * from memory; one that is further behind than what is kept reads by its own number, and holds up nobody. Where an
 * organization has too many calls at once, a reading waits until it may: no watcher ends for that.
 */
export class JobWatch {
  watchers = 0;
  readonly #tenants: Tenants;
  readonly #feed: JobFeed;
  readonly #orgId: string;
  readonly #jobId: string;
  readonly #onEnd: () => void;
  readonly #ending = new AbortController();
  readonly #waiting = new Set<() => void>();
  /** Readings for watchers that are behind, by the number they ask from: those that are equally far share one. */
  readonly #behind = new Map<number, Promise<JobEventRow[]>>();
  readonly #unwatch: () => void;
  readonly #clock: NodeJS.Timeout;
  #bell = Promise.withResolvers<void>();
  #readAt = 0;
  #view: JobView | undefined;
  #failure: { error: unknown } | undefined;

  constructor(deps: { tenants: Tenants; feed: JobFeed }, orgId: string, jobId: string, onEnd: () => void) {
    this.#tenants = deps.tenants;
    this.#feed = deps.feed;
    this.#orgId = orgId;
    this.#jobId = jobId;
    this.#onEnd = onEnd;
    this.#unwatch = this.#feed.watch(orgId, jobId, () => this.#bell.resolve());
    this.#clock = setInterval(() => {
      if (!this.#feed.live || performance.now() - this.#readAt >= SAFETY_POLL_MS) this.#bell.resolve();
    }, POLL_MS);
    void this.#run();
  }

  /** True once it failed: who joins later needs another. */
  get isOver(): boolean {
    return this.#failure !== undefined;
  }

  /** The job as it was read last; waits for the first reading. Throws what ended the readings. */
  async view(signal: AbortSignal): Promise<JobView> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure.error;
      if (this.#view !== undefined) return this.#view;
      await this.#wake(undefined, signal);
    }
  }

  /** Waits until more was read than the view says, or for `ms`. */
  async moved(view: JobView, ms: number, signal: AbortSignal): Promise<void> {
    if (this.#view === view && this.#failure === undefined) await this.#wake(ms, signal);
  }

  /** Some events after a number: from the view, or read when it does not hold them any more. None when there are none. */
  async eventsAfter(
    { row, events, after }: JobView,
    seen: number,
    signal: AbortSignal,
  ): Promise<readonly JobEventRow[]> {
    if (seen >= after) return events.slice(events.findLastIndex((event) => event.seq_no <= seen) + 1);
    let reading = this.#behind.get(seen);
    if (reading === undefined) {
      reading = this.#read((tx) => readEvents(tx, row, seen, EVENTS)).finally(() => this.#behind.delete(seen));
      this.#behind.set(seen, reading);
    }
    return orAborted(reading, signal);
  }

  /** The last one to leave ends it. */
  leave(): void {
    this.watchers -= 1;
    if (this.watchers === 0) this.#end();
  }

  async #run(): Promise<void> {
    const { signal } = this.#ending;
    try {
      for (let more = true; more;) {
        this.#bell = Promise.withResolvers<void>();
        const isWhole = await this.#readOn();
        // Once it has ended, nothing can come that this reading did not see.
        more = !isWhole || !isEnded(this.#view!.row.status);
        if (more && isWhole) await orAborted(this.#bell.promise, signal);
      }
    } catch (error) {
      if (!signal.aborted) this.#failure = { error };
      this.#tellAll();
    }
    this.#stop();
  }

  /** Reads the job, and then its events: those that are there by then are all that its row counts. False when some are left. */
  async #readOn(): Promise<boolean> {
    const before = this.#view;
    const { row, from, found } = await this.#read(async (tx) => {
      const { row: job } = await requireJob(tx, this.#jobId);
      const start = before?.through ?? Math.max(0, job.event_seq - EVENTS);
      // Nothing new: no need to look.
      const events = job.event_seq > start ? await readEvents(tx, job, start, EVENTS) : [];
      return { row: job, from: start, found: events };
    });
    this.#readAt = performance.now();
    const isWhole = found.length < EVENTS;
    const last = found.at(-1)?.seq_no ?? from;
    const all = [...(before?.events ?? []), ...found];
    const events = all.slice(-EVENTS);
    const after = events.length < all.length ? events[0]!.seq_no - 1 : (before?.after ?? from);
    this.#view = { row, events, after, through: isWhole ? Math.max(last, row.event_seq) : last };
    if (before === undefined || found.length > 0 || isEnded(row.status)) this.#tellAll();
    return isWhole;
  }

  async #read<T>(fn: (tx: TenantTx) => Promise<T>): Promise<T> {
    const { signal } = this.#ending;
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#tenants.read(this.#orgId, fn, { signal });
      } catch (error) {
        signal.throwIfAborted();
        if (reasonOf(error) !== 'CONNECTION_BUDGET_EXHAUSTED') throw error;
        await sleep((retryAfterMsOf(error) ?? 0) + backoff(attempt, BUSY), signal);
      }
    }
  }

  #tellAll(): void {
    for (const wake of this.#waiting) wake();
  }

  /** Resolves at the next telling or after `ms`; rejects when the signal aborts. */
  async #wake(ms: number | undefined, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = ms === undefined ? undefined : setTimeout(resolve, ms);
    this.#waiting.add(resolve);
    try {
      await orAborted(promise, signal);
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(resolve);
    }
  }

  #stop(): void {
    clearInterval(this.#clock);
    this.#unwatch();
  }

  #end(): void {
    this.#stop();
    this.#ending.abort();
    this.#onEnd();
  }
}

/** What the promise gives; rejects with the signal's reason when that aborts first. */
function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    const settle = (): void => signal.removeEventListener('abort', onAbort);
    promise.then(resolve, reject).finally(settle);
  });
}
