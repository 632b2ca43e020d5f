/** No connection came free before the deadline. */
export class BudgetExhausted extends Error {
  override readonly name = 'BudgetExhausted';

  constructor(waitedMs: number) {
    super(`no database connection came free within ${Math.round(waitedMs)} ms`);
  }
}

/** The pool was ended while the request waited: its tenant moved, or the process is closing. */
export class PoolEnded extends Error {
  override readonly name = 'PoolEnded';

  constructor() {
    super('the pool of connections has ended');
  }
}
