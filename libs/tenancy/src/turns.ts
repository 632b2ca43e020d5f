import { SECOND_MS } from '@mad/process';
import { BudgetExhausted } from './budget-errors.ts';
import type { WaitOptions } from './connection-budget.ts';

/** A call that runs longer goes on, but its turn is another's: nobody waits behind a report, or behind a lock. */
const TURN_MS = 50;
/** Who asked so recently still counts: it may come back at any moment. */
const ACTIVE_MS = SECOND_MS;

/** Leave to run; given back once, by `end` or by the clock. */
export interface Turn {
  end(): void;
  /**
   * What `fn` waits for runs on no server: meanwhile another call may. Afterwards this one goes on without waiting again, so
   * only one of an organization steps aside at a time.
   */
  aside<T>(fn: () => Promise<T>): Promise<T>;
}

interface Waiter {
  resolve(turn: Turn): void;
}

/** An organization that has calls, or had some a moment ago. */
interface Party {
  readonly orgId: string;
  /** Turns it has now. */
  taken: number;
  /** Milliseconds of turns it has had, counted from where the others were when it came. */
  used: number;
  /** One of its calls has stepped aside. */
  aside: boolean;
  readonly waiters: Waiter[];
  restingSince: number;
}

/**
 * Who may run on one Postgres server at once. Connections bound what is open; but sixty statements that run at once on a few
 * cores make everybody's slow, also the one statement of an organization that asks for little. So while several
 * organizations are active, `limit` calls run at once. What comes free goes to whoever waits with the fewest calls running,
 * among those to whoever has had the least time: fair queueing by start times (Goyal, Vin, Cheng, SIGCOMM 1996). An
 * organization that has no call at all never waits, and one that is alone is not bound.
 */
export class Turns {
  readonly #limit: number;
  #running = 0;
  /** What the party that was let in last had used then. */
  #clock = 0;
  readonly #parties = new Map<string, Party>();
  readonly #waiting = new Set<Party>();
  /** Parties without calls, those that rest longest first. */
  readonly #resting = new Set<Party>();

  /** `limit`: calls at once over all organizations, about one for each core of the server and one on its way. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** A turn at once, or when one comes free. Rejects with BudgetExhausted at the deadline, or as the signal says. */
  take(orgId: string, { timeoutMs, signal }: WaitOptions): Turn | Promise<Turn> {
    const party = this.#partyOf(orgId);
    if (party.waiters.length === 0 && (party.taken === 0 || this.#hasRoom())) return this.#give(party);
    return new Promise((resolve, reject) => {
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
      };
      const leave = (error: Error): void => {
        done();
        party.waiters.splice(party.waiters.indexOf(waiter), 1);
        this.#settle(party);
        reject(error);
      };
      const waiter: Waiter = {
        resolve(turn) {
          done();
          resolve(turn);
        },
      };
      const onAbort = (): void => leave(signal!.reason as Error);
      const timer = setTimeout(() => leave(new BudgetExhausted(timeoutMs)), timeoutMs);
      signal?.addEventListener('abort', onAbort, { once: true });
      party.waiters.push(waiter);
      this.#waiting.add(party);
    });
  }

  /** Calls that wait for a turn. */
  get waiting(): number {
    let waiting = 0;
    for (const { waiters } of this.#waiting) waiting += waiters.length;
    return waiting;
  }

  #partyOf(orgId: string): Party {
    let party = this.#parties.get(orgId);
    if (party === undefined) {
      party = { orgId, taken: 0, used: this.#clock, aside: false, waiters: [], restingSince: 0 };
      this.#parties.set(orgId, party);
    } else if (this.#resting.delete(party)) {
      // Time that was not asked for is not saved up.
      party.used = Math.max(party.used, this.#clock);
    }
    return party;
  }

  /** Whether one more may run: fewer do than may, or there is nobody else. */
  #hasRoom(): boolean {
    const now = performance.now();
    for (const party of this.#resting) {
      if (now - party.restingSince < ACTIVE_MS) break;
      this.#resting.delete(party);
      this.#parties.delete(party.orgId);
    }
    return this.#running < this.#limit || this.#parties.size === 1;
  }

  #give(party: Party): Turn {
    party.taken += 1;
    this.#running += 1;
    const began = performance.now();
    let over = false;
    let running = true;
    const leave = (): void => {
      if (running) this.#running -= 1;
      running = false;
      while (this.#waiting.size > 0 && this.#hasRoom()) this.#letIn();
    };
    const end = (): void => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      party.taken -= 1;
      party.used += performance.now() - began;
      leave();
      this.#settle(party);
    };
    const aside = async <T>(fn: () => Promise<T>): Promise<T> => {
      if (party.aside) return fn();
      party.aside = true;
      leave();
      try {
        return await fn();
      } finally {
        party.aside = false;
        if (!over) {
          this.#running += 1;
          running = true;
        }
      }
    };
    const timer = setTimeout(end, TURN_MS).unref();
    return { end, aside };
  }

  #letIn(): void {
    let next: Party | undefined;
    for (const one of this.#waiting) if (next === undefined || isBefore(one, next)) next = one;
    this.#clock = next!.used;
    const waiter = next!.waiters.shift()!;
    const turn = this.#give(next!);
    this.#settle(next!);
    waiter.resolve(turn);
  }

  /** Puts a party where it belongs after one of its calls began, ended, or went away. */
  #settle(party: Party): void {
    if (party.waiters.length > 0) return;
    this.#waiting.delete(party);
    if (party.taken > 0 || this.#resting.has(party)) return;
    party.restingSince = performance.now();
    this.#resting.add(party);
  }
}

function isBefore(a: Party, b: Party): boolean {
  return a.taken === b.taken ? a.used < b.used : a.taken < b.taken;
}
