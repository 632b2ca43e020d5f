import { EventEmitter } from 'node:events';
import { SECOND_MS } from '@mad/process';
import type pg from 'pg';
import type { Member, Slot } from './budget-slot.ts';
import type { ConnectionBudget, WaitOptions } from './connection-budget.ts';
import { Demand } from './demand.ts';

/** A connection that does not answer the check within this time is taken for lost. */
const CHECK_TIMEOUT_MS = 2 * SECOND_MS;

export interface BudgetedPoolOptions {
  budget: ConnectionBudget;
  /** Opens one connection. */
  connect: () => Promise<pg.PoolClient>;
  /** Connections of this pool at most. */
  max: number;
  /** How long `connect` waits for one, in milliseconds. */
  waitMs: number;
  /** A connection idle for longer is asked for a sign of life before use, in milliseconds. */
  checkAfterMs: number;
}

type Release = (error?: Error | boolean) => void;
type ConnectCallback = (error: Error | undefined, client: pg.PoolClient | undefined, release: Release) => void;

/**
 * One tenant's pool, whose connections count against the budget of their server. It is what TypeORM uses of `pg.Pool`:
 * `connect`, `end` and the event `error`.
 */
export class BudgetedPool extends EventEmitter {
  readonly #budget: ConnectionBudget;
  readonly #options: BudgetedPoolOptions;
  readonly #member: Member;
  #ended: Promise<void> | undefined;

  constructor(options: BudgetedPoolOptions) {
    super();
    this.#options = options;
    this.#budget = options.budget;
    this.#member = {
      max: options.max,
      size: 0,
      opening: 0,
      closing: 0,
      idle: [],
      waiters: [],
      ended: false,
      demand: new Demand(),
      connect: options.connect,
      lost: (error) => this.emit('error', error),
    };
  }

  get totalCount(): number {
    return this.#member.size;
  }

  get idleCount(): number {
    return this.#member.idle.length;
  }

  /** Whether a connection is being opened. */
  get isConnecting(): boolean {
    return this.#member.opening > 0;
  }

  get waitingCount(): number {
    return this.#member.waiters.length;
  }

  /** Takes a connection that is known to live; give it back with `giveBack`. */
  async take(options: WaitOptions): Promise<Slot> {
    for (;;) {
      const slot = this.#budget.takeIdle(this.#member) ?? (await this.#budget.take(this.#member, options));
      const idleMs = slot.idleSince === 0 ? 0 : performance.now() - slot.idleSince;
      if (idleMs < this.#options.checkAfterMs || (await isAlive(slot.client))) return slot;
      this.#budget.giveBack(slot, true);
    }
  }

  /** Returns a connection; `broken` closes it. */
  giveBack(slot: Slot, broken: boolean): void {
    this.#budget.giveBack(slot, broken);
  }

  /** Closes those nobody uses: the next use opens a new one. */
  closeIdle(): void {
    this.#budget.closeIdleOf(this.#member);
  }

  /** As `pg.Pool`: a client with its `release`, by promise or by callback. */
  connect(): Promise<pg.PoolClient>;
  connect(callback: ConnectCallback): void;
  connect(callback?: ConnectCallback): Promise<pg.PoolClient> | void {
    const taken = this.take({ timeoutMs: this.#options.waitMs }).then((slot) => {
      let released = false;
      slot.client.release = (error) => {
        if (released) throw new Error('the connection was released already');
        released = true;
        this.giveBack(slot, Boolean(error));
      };
      return slot.client;
    });
    if (callback === undefined) return taken;
    taken.then(
      (client) => callback(undefined, client, (error) => client.release(error)),
      (error: unknown) => callback(error as Error, undefined, () => undefined),
    );
  }

  /** Lets those in use finish, closes everything. May be called twice. */
  end(): Promise<void>;
  end(callback: () => void): void;
  end(callback?: () => void): Promise<void> | void {
    this.#ended ??= this.#budget.end(this.#member);
    if (callback === undefined) return this.#ended;
    void this.#ended.then(callback);
  }
}

/** A sign of life; false when there is none in time. */
export async function isAlive(client: pg.PoolClient): Promise<boolean> {
  try {
    const query: pg.QueryConfig & { query_timeout: number } = { text: 'SELECT 1', query_timeout: CHECK_TIMEOUT_MS };
    await client.query(query);
    return true;
  } catch {
    return false;
  }
}
