/** No connection came free before the deadline. */
export class BudgetExhausted extends Error {
  override readonly name = 'BudgetExhausted';

  constructor(waitedMs: number) {
    super(`no database connection came free within ${Math.round(waitedMs)} ms`);
  }
}

/** The server could not be connected to, again and again: no connection is opened before `retryAfterMs`. */
export class ServerUnavailable extends Error {
  override readonly name = 'ServerUnavailable';
  readonly retryAfterMs: number;

  constructor(retryAfterMs: number) {
    super(`the database server cannot be connected to; the next try is in ${retryAfterMs} ms`);
    this.retryAfterMs = retryAfterMs;
  }
}

/** The pool was ended while the request waited: its tenant moved, or the process is closing. */
export class PoolEnded extends Error {
  override readonly name = 'PoolEnded';

  constructor() {
    super('the pool of connections has ended');
  }
}
