import { EventEmitter } from 'node:events';

/**
 * Tells those who watch a job in this process that it moved. A hint, not the truth: events are rows first, and watchers
 * look at the rows anyway.
 */
export class JobFeed {
  readonly #emitter = new EventEmitter();

  constructor() {
    // One listener per watcher; there may be many.
    this.#emitter.setMaxListeners(0);
  }

  /** The job changed, and the change is committed. */
  moved(orgId: string, jobId: string): void {
    this.#emitter.emit(`${orgId}/${jobId}`);
  }

  /** Calls `listener` whenever the job moves, until the returned function is called. */
  watch(orgId: string, jobId: string, listener: () => void): () => void {
    const event = `${orgId}/${jobId}`;
    this.#emitter.on(event, listener);
    return () => this.#emitter.off(event, listener);
  }
}
