import { SECOND_MS } from '@mad/process';

/** A use counts half after this long. */
const HALF_LIFE_MS = 20 * SECOND_MS;

/** How often something was used of late: uses, older ones counting less. */
export class Demand {
  #uses = 0;
  #asOf = 0;

  /** One use more. `now` in the milliseconds of `performance.now()`. */
  note(now: number): void {
    this.#uses = this.at(now) + 1;
    this.#asOf = now;
  }

  at(now: number): number {
    return this.#uses * 2 ** ((this.#asOf - now) / HALF_LIFE_MS);
  }
}
