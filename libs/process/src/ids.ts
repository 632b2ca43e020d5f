import { randomInt } from 'node:crypto';
import { v7 } from 'uuid';
import { SECOND_MS } from './durations.ts';

/** A clock that goes back further than this was wrong before; one that goes back less was corrected. */
const CORRECTION_MS = 10 * SECOND_MS;
/** Half of the counter's 32 bits is left to count with. */
const COUNTER_START = 2 ** 31;

let last = 0;
let counter = 0;

/**
 * A new UUIDv7 (RFC 9562 §5.7): the first 48 bits are its time in ms, and ids made by one process ascend, also while its clock
 * is corrected (§6.2). The library's own counter never comes back from a clock that was ahead for a moment, and jobs are kept
 * by the month in their ids.
 */
export function uuidv7(): string {
  const now = Date.now();
  if (now > last || last - now > CORRECTION_MS) {
    last = now;
    counter = randomInt(COUNTER_START);
  } else {
    counter += 1;
  }
  return v7({ msecs: last, seq: counter });
}

/** The time a UUIDv7 was made, to the millisecond. Throws a RangeError for anything that is not a UUIDv7. */
export function uuidTime(id: string): Date {
  if (!/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i.test(id)) {
    throw new RangeError(`not a UUIDv7: ${JSON.stringify(id)}`);
  }
  return new Date(parseInt(id.slice(0, 8) + id.slice(9, 13), 16));
}
