import pg from 'pg';
import { isAlive } from './budgeted-pool.ts';
import { CircuitBreaker, type BreakerOptions } from './circuit-breaker.ts';
import { ConnectionBudget } from './connection-budget.ts';
import { failureOf } from './failure.ts';
import { Turns } from './turns.ts';

/** What the server can hold for logins without privileges. Postgres before 16 knows no `reserved_connections`. */
const CAPACITY_SQL = `SELECT current_setting('max_connections')::int
  - current_setting('superuser_reserved_connections')::int
  - coalesce(current_setting('reserved_connections', true)::int, 0) AS capacity`;

export interface TenantServerOptions {
  /** Connections wanted at most; the server's own capacity may be less. */
  limit: number;
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
  readonly budget: ConnectionBudget;
  readonly turns: Turns;
  readonly #breaker: CircuitBreaker;
  #wanted: number;
  #capacity: number | undefined;
  #answers: boolean | undefined;

  constructor({ limit, turns, patienceMs, breaker }: TenantServerOptions) {
    this.#wanted = limit;
    this.#breaker = new CircuitBreaker(breaker);
    this.budget = new ConnectionBudget({ limit, patienceMs, breaker: this.#breaker });
    this.turns = new Turns(turns);
  }

  /** Connections wanted at most from now on. */
  want(limit: number): void {
    this.#wanted = limit;
    this.#limit();
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
    this.budget.limit = Math.max(1, Math.min(this.#wanted, this.#capacity ?? Number.POSITIVE_INFINITY));
  }
}
