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
}

interface Waiter {
  resolve(turn: Turn): void;
}

/** An organization that has calls, or had some a moment ago. */
interface Party {
  readonly orgId: string;
  /** Turns it has now. */
  taken: number;
  readonly waiters: Waiter[];
  restingSince: number;
}

/**
 * Who may run on one Postgres server at once. Connections bound what is open; but sixty statements that run at once on a few
 * cores make everybody's slow, also the one statement of an organization that asks for little. So while several
 * organizations are active each has an equal share of `limit` turns, at least one, and waits for its own calls only. An
 * organization that is alone is not bound.
 */
export class Turns {
  readonly #limit: number;
  readonly #parties = new Map<string, Party>();
  /** Parties without turns, those that rest longest first. */
  readonly #resting = new Set<Party>();

  /** `limit`: calls at once over all organizations, about four for each core of the server. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** A turn at once, or when one comes free. Rejects with BudgetExhausted at the deadline, or as the signal says. */
  take(orgId: string, { timeoutMs, signal }: WaitOptions): Turn | Promise<Turn> {
    const party = this.#partyOf(orgId);
    if (party.taken < this.#share()) return this.#give(party);
    return new Promise((resolve, reject) => {
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
      };
      const leave = (error: Error): void => {
        done();
        party.waiters.splice(party.waiters.indexOf(waiter), 1);
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
    });
  }

  /** Calls that wait for a turn. */
  get waiting(): number {
    let waiting = 0;
    for (const { waiters } of this.#parties.values()) waiting += waiters.length;
    return waiting;
  }

  #partyOf(orgId: string): Party {
    let party = this.#parties.get(orgId);
    if (party === undefined) {
      party = { orgId, taken: 0, waiters: [], restingSince: 0 };
      this.#parties.set(orgId, party);
    } else {
      this.#resting.delete(party);
    }
    return party;
  }

  #share(): number {
    const now = performance.now();
    for (const party of this.#resting) {
      if (now - party.restingSince < ACTIVE_MS) break;
      this.#resting.delete(party);
      this.#parties.delete(party.orgId);
    }
    const parties = this.#parties.size;
    return parties === 1 ? Number.POSITIVE_INFINITY : Math.max(1, Math.floor(this.#limit / parties));
  }

  #give(party: Party): Turn {
    party.taken += 1;
    let over = false;
    const end = (): void => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      this.#returned(party);
    };
    const timer = setTimeout(end, TURN_MS).unref();
    return { end };
  }

  #returned(party: Party): void {
    party.taken -= 1;
    while (party.waiters.length > 0 && party.taken < this.#share()) {
      party.waiters.shift()!.resolve(this.#give(party));
    }
    if (party.taken > 0) return;
    party.restingSince = performance.now();
    this.#resting.add(party);
  }
}
