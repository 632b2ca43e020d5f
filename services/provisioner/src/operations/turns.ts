import { SECOND_MS } from '@mad/process';
import { mayTakeLong, PLANS, type OperationKind } from '../domain/plan.ts';

/** Runs at once in this process: each holds a connection to a server, and many copy a database. */
const MAX_RUNS = 5;
/** Of these, such as may take long: one is left for what somebody waits for, e.g. a new organization. */
const MAX_SLOW_RUNS = 4;
/** Of these, such as leave room for others. */
const MAX_LONG_RUNS = 2;
/** Beside all of these, such as shut a tenant or open it again. */
const MAX_URGENT_RUNS = 2;
/** How soon somebody in line sees that it need not wait any more. */
const LOOK_MS = SECOND_MS / 2;

/** Who may run now, and who waits until another run of this process has ended. */
export class Turns {
  readonly #running: OperationKind[] = [];
  readonly #waiting = new Set<() => void>();

  /** Ends when it is the kind's turn, or at once when nobody wants it any more: `leave` it afterwards in any case. */
  async take(kind: OperationKind, isGivenUp: () => Promise<boolean>): Promise<void> {
    while (!this.#mayRun(kind)) {
      await this.#wokenOr(LOOK_MS);
      // What cannot be asked now is asked the next time.
      if (!this.#mayRun(kind) && (await isGivenUp().catch(() => false))) break;
    }
    this.#running.push(kind);
  }

  leave(kind: OperationKind): void {
    this.#running.splice(this.#running.indexOf(kind), 1);
    // All of them look again: the first in line may be one that has to wait for something else.
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }

  async #wokenOr(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    this.#waiting.add(resolve);
    await promise;
    clearTimeout(timer);
    this.#waiting.delete(resolve);
  }

  #mayRun(kind: OperationKind): boolean {
    const { urgent, long } = PLANS[kind];
    if (urgent) return this.#running.length < MAX_RUNS + MAX_URGENT_RUNS;
    if (this.#running.length >= MAX_RUNS) return false;
    if (long && this.#count((one) => PLANS[one].long ?? false) >= MAX_LONG_RUNS) return false;
    return !mayTakeLong(kind) || this.#count(mayTakeLong) < MAX_SLOW_RUNS;
  }

  #count(which: (kind: OperationKind) => boolean): number {
    return this.#running.filter(which).length;
  }
}
