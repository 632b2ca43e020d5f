import { SECOND_MS } from '@mad/process';
import pg from 'pg';
import { isAlive } from './budgeted-pool.ts';
import { CircuitBreaker, type BreakerOptions } from './circuit-breaker.ts';
import { ConnectionBudget } from './connection-budget.ts';
import type { Holding, Share } from './connection-shares.ts';
import { failureOf } from './failure.ts';
import { Turns } from './turns.ts';

/** What the server can hold for logins without privileges. Postgres before 16 knows no `reserved_connections`. */
const CAPACITY_SQL = `SELECT current_setting('max_connections')::int
  - current_setting('superuser_reserved_connections')::int
  - coalesce(current_setting('reserved_connections', true)::int, 0) AS capacity`;

/** An idle connection that nobody used for so long is no reason to lease more. */
const RESTED_MS = 20 * SECOND_MS;

export interface TenantServerOptions {
  /** The provisioner's name for it. */
  serverId: string;
  /** Connections at most; the server's own capacity may be less. Undefined: as many as `allow` says, none before. */
  limit?: number | undefined;
  /** See Turns. */
  turns: number;
  /** See BudgetOptions. */
  patienceMs?: number;
  breaker?: BreakerOptions;
}

/** A server as counted for health and metrics. */
export interface ServerStatus {
  /** Connections: `open` counts those being opened, closed and idle too, and never exceeds `limit`. */
  limit: number;
  open: number;
  idle: number;
  /** Requests that wait for one, or for their turn. */
  waiting: number;
  breaker: 'closed' | 'open' | 'half_open';
  /** What its last sign of life, or the want of one, said; undefined before the first. */
  answers: boolean | undefined;
}

/** One Postgres server with organizations' databases, as this process sees it. What is wrong with it is wrong with it alone. */
export class TenantServer {
  readonly serverId: string;
  readonly budget: ConnectionBudget;
  readonly turns: Turns;
  readonly #breaker: CircuitBreaker;
  readonly #fixed: number | undefined;
  #share: Share | undefined;
  #capacity: number | undefined;
  #answers: boolean | undefined;

  constructor({ serverId, limit, turns, patienceMs, breaker }: TenantServerOptions) {
    this.serverId = serverId;
    this.#fixed = limit;
    this.#breaker = new CircuitBreaker(breaker);
    this.budget = new ConnectionBudget({ limit: limit ?? 0, patienceMs, breaker: this.#breaker });
    this.turns = new Turns(turns);
  }

  /** What was leased to this process; its time may be over. */
  allow(share: Share | undefined): void {
    this.#share = share;
    this.#limit();
  }

  /** What there is and what there is use for, to lease a share by. */
  holding(): Holding {
    const { limit, open, waiting } = this.budget.status();
    // Kept because there is room: a process that visits many tenants once must not take another's for it.
    const rested = this.budget.idleFor(RESTED_MS);
    // Who is at its limit with nothing to spare may have closed what it will need again: it tries for a quarter more.
    const more = open < limit || rested > 0 ? 0 : Math.ceil(limit / 4);
    return { serverId: this.serverId, held: Math.max(limit, open), wanted: open - rested + Math.max(waiting, more) };
  }

  /** Opens a connection; the budget has made room for it. The first one learns what the server can hold. */
  async connect(config: pg.ClientConfig): Promise<pg.PoolClient> {
    // The password stays out of logs because `pg` hides it.
    const client = new pg.Client(config);
    // What breaks it between here and its first user is told by its first statement.
    client.on('error', () => undefined);
    try {
      await client.connect();
      if (this.#capacity === undefined) await this.#measure(client);
    } catch (error) {
      // Whoever refuses a login is there.
      this.#answers = failureOf(error, 'connect')?.breaker !== true;
      // It may be back with other settings.
      if (!this.#answers) this.#capacity = undefined;
      throw error;
    }
    this.#answers = true;
    return client as unknown as pg.PoolClient;
  }

  /**
   * Asks for a sign of life over a connection that is open and idle, whoever's: an organization nobody uses is not woken
   * up for it. Without one, what is known stays as it is.
   */
  async probe(): Promise<void> {
    const slot = this.budget.borrowIdle();
    if (slot === undefined) return;
    this.#answers = await isAlive(slot.client);
    this.budget.returnBorrowed(slot, !this.#answers);
  }

  status(): ServerStatus {
    const connections = this.budget.status();
    const waiting = connections.waiting + this.turns.waiting;
    return { ...connections, waiting, breaker: this.#breaker.state, answers: this.#answers };
  }

  async #measure(client: pg.Client): Promise<void> {
    const { rows } = await client.query<{ capacity: number }>(CAPACITY_SQL);
    this.#capacity = rows[0]?.capacity;
    this.#limit();
  }

  #limit(): void {
    this.budget.limit = Math.min(this.#allowed(), this.#capacity ?? Number.POSITIVE_INFINITY);
  }

  #allowed(): number {
    if (this.#fixed !== undefined) return this.#fixed;
    if (this.#share === undefined) return 0;
    if (performance.now() < this.#share.until) return this.#share.connections;
    // The lease is over, and others may have the room as soon as these are ended: what is open may be used, no more.
    const { limit, open } = this.budget.status();
    return Math.min(limit, open);
  }
}
