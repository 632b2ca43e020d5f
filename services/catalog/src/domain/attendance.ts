/**
 * Whether somebody was there to hear every worker for a whole lease. A lease that ran out while nobody could extend it, for
 * this process had not begun, stood still or had no database, says nothing about the worker that holds it.
 */
export class Attendance {
  readonly #leaseMs: number;
  readonly #gapMs: number;
  #since = 0;
  #last = -Infinity;

  /** Looked at every `reapMs`. Workers are heard every half of a lease (heartbeat): a shorter silence ends none. */
  constructor({ leaseMs, reapMs }: { leaseMs: number; reapMs: number }) {
    this.#leaseMs = leaseMs;
    this.#gapMs = Math.max(leaseMs / 2, 2 * reapMs);
  }

  /** Notes that the queue could be reached. Times are ms of a clock that does not step. */
  note(now: number): void {
    if (now - this.#last > this.#gapMs) this.#since = now;
    this.#last = now;
  }

  /** Whether leases that ran out by now are lost. */
  isFull(now: number): boolean {
    return now - this.#last <= this.#gapMs && now - this.#since >= this.#leaseMs;
  }
}
