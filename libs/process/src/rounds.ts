import type { Logger } from './logger.ts';
import { sleep } from './sleep.ts';

export interface RoundsOptions {
  /** Time between the end of a round and the next, in milliseconds. */
  everyMs: number;
  logger: Logger;
  /** What the log says when a round threw; the next one comes nevertheless. */
  failure: string;
}

/** Looks after something at once and then again and again until it is closed, one round at a time. */
export class Rounds {
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  /** `round` should end soon when the signal aborts. */
  constructor({ everyMs, logger, failure }: RoundsOptions, round: (signal: AbortSignal) => Promise<unknown>) {
    const { signal } = this.#stop;
    const run = async (): Promise<void> => {
      while (!signal.aborted) {
        try {
          await round(signal);
        } catch (error) {
          logger.warn({ error }, failure);
        }
        await sleep(everyMs, signal).catch(() => undefined);
      }
    };
    this.#running = run();
  }

  /** No further round; resolves when the one under way has ended. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}
