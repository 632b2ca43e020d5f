import { Code, ConnectError } from '@connectrpc/connect';
import { ObjectDamagedError, ObjectNotFoundError } from '@mad/object-store';

/** DATA_LOSS: `what` cannot be had any more. */
export function lost(what: string, how: 'missing' | 'damaged', cause?: unknown): ConnectError {
  return new ConnectError(`${what} is ${how} in the object store`, Code.DataLoss, undefined, undefined, cause);
}

/** What reading the object of `what` failed with: DATA_LOSS where it is missing or damaged, else the error itself. */
export function readFailure(what: string, error: unknown): unknown {
  if (error instanceof ObjectNotFoundError) return lost(what, 'missing', error);
  return error instanceof ObjectDamagedError ? lost(what, 'damaged', error) : error;
}
