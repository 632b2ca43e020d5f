import { EventEmitter } from 'node:events';
import { openBroadcast, type Broadcast, type PubSub } from '@mad/cache';

const CHANNEL = 'results:jobs';

/**
 * Tells those who watch a job, here and in the other processes of results, that it moved. A hint, not the truth: events
 * are rows first, and watchers look at the rows anyway.
 */
export class JobFeed {
  readonly #emitter: EventEmitter;
  readonly #others: Broadcast;

  constructor(emitter: EventEmitter, others: Broadcast) {
    this.#emitter = emitter;
    this.#others = others;
  }

  /** Opens the feed; other processes are reached through `pubSub`. */
  static async open(pubSub: PubSub): Promise<JobFeed> {
    // One listener per job that is watched; there may be many.
    const emitter = new EventEmitter().setMaxListeners(0);
    const others = await openBroadcast(pubSub, CHANNEL, (job) => {
      if (typeof job === 'string' && job.includes('/')) emitter.emit(job);
    });
    return new JobFeed(emitter, others);
  }

  /** The job changed, and the change is committed. */
  moved(orgId: string, jobId: string): void {
    const job = eventOf(orgId, jobId);
    this.#emitter.emit(job);
    this.#others.tell(job);
  }

  /** Calls `listener` whenever the job moves, until the returned function is called. */
  watch(orgId: string, jobId: string, listener: () => void): () => void {
    const job = eventOf(orgId, jobId);
    this.#emitter.on(job, listener);
    return () => this.#emitter.off(job, listener);
  }

  /** Whether a change in another process is heard of now. */
  get live(): boolean {
    return this.#others.live();
  }

  close(): Promise<void> {
    return this.#others.close();
  }
}

/** The slash keeps it apart from the emitter's own events, of which `error` would throw. */
const eventOf = (orgId: string, jobId: string): string => `${orgId}/${jobId}`;
