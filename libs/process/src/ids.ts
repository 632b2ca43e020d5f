import { v7 } from 'uuid';

/** A new UUIDv7 (RFC 9562 §5.7): the first 48 bits are its time in ms, and ids made by one process ascend. */
export function uuidv7(): string {
  return v7();
}

/** The time a UUIDv7 was made, to the millisecond. Throws a RangeError for anything that is not a UUIDv7. */
export function uuidTime(id: string): Date {
  if (!/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i.test(id)) {
    throw new RangeError(`not a UUIDv7: ${JSON.stringify(id)}`);
  }
  return new Date(parseInt(id.slice(0, 8) + id.slice(9, 13), 16));
}
