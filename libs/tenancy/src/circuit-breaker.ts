import { SECOND_MS } from '@mad/process';

/** `closed`: connections are opened. `open`: none is, for a while. `half_open`: one may try. */
export type BreakerState = 'closed' | 'open' | 'half_open';

export interface BreakerOptions {
  /** Failures in a row that open it. Default 5. */
  threshold?: number;
  /** How long it stays open the first time, in milliseconds; doubled each time a try fails. Default 500. */
  baseMs?: number;
  /** The longest it stays open. Default 15 s. */
  maxMs?: number;
  /** The clock, in milliseconds. */
  now?: () => number;
}

/** One connection being opened. Exactly one of the three is called, once. */
export interface Attempt {
  succeeded(): void;
  failed(): void;
  /** It came to nothing that says anything about the server. */
  dropped(): void;
}

/**
 * Keeps requests from queuing at a server that cannot be connected to. Only connections that could not be opened for the
 * server's own reasons count, never a statement's error; connections that are open go on being used.
 */
export class CircuitBreaker {
  readonly #threshold: number;
  readonly #baseMs: number;
  readonly #maxMs: number;
  readonly #now: () => number;
  #failures = 0;
  /** How often in a row it opened. */
  #opened = 0;
  #openUntil = 0;
  #trying = false;

  constructor({
    threshold = 5,
    baseMs = SECOND_MS / 2,
    maxMs = 15 * SECOND_MS,
    now = () => performance.now(),
  }: BreakerOptions = {}) {
    this.#threshold = threshold;
    this.#baseMs = baseMs;
    this.#maxMs = maxMs;
    this.#now = now;
  }

  get state(): BreakerState {
    if (this.#opened === 0) return 'closed';
    return this.#trying || this.#now() >= this.#openUntil ? 'half_open' : 'open';
  }

  /** Whether a connection may be opened now. */
  allows(): boolean {
    return this.#opened === 0 || (!this.#trying && this.#now() >= this.#openUntil);
  }

  /** When to come again, in milliseconds. */
  retryAfterMs(): number {
    return Math.max(1, Math.ceil(this.#openUntil - this.#now()));
  }

  /** Begins to open a connection; only where `allows`. */
  begin(): Attempt {
    const tries = this.#opened > 0;
    if (tries) this.#trying = true;
    const done = (): void => {
      if (tries) this.#trying = false;
    };
    return {
      succeeded: () => {
        done();
        this.#failures = 0;
        this.#opened = 0;
      },
      failed: () => {
        done();
        this.#failures += 1;
        // Those that began before it opened, and fail after, are no news.
        if (tries || (this.#opened === 0 && this.#failures >= this.#threshold)) this.#open();
      },
      dropped: done,
    };
  }

  #open(): void {
    const longest = Math.min(this.#maxMs, this.#baseMs * 2 ** this.#opened);
    // Jitter, but never nothing: processes that failed together do not come back together, nor at once.
    this.#openUntil = this.#now() + longest * (0.5 + Math.random() / 2);
    this.#opened += 1;
  }
}
