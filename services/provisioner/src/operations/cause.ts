import { types } from 'node:util';
import { Code, ConnectError } from '@connectrpc/connect';
import { failureOf } from '@mad/tenancy';
import type { OperationCause } from '../domain/operation-cause.ts';

/** Somebody held a table for too long, or waited for one of ours: lock_not_available, deadlock_detected. */
const HELD: ReadonlySet<unknown> = new Set(['55P03', '40P01']);
/** What the schema's owner, or a key service, answers when it or the server behind it is not there. */
const AWAY: ReadonlySet<Code> = new Set([Code.Unavailable, Code.DeadlineExceeded]);

/** What a failure means for the next try, by the codes of what was thrown and of what that was thrown for. */
export function causeOf(error: unknown): OperationCause {
  if (error instanceof ConnectError) {
    return AWAY.has(error.code) ? 'away' : error.code === Code.Aborted ? 'held' : '';
  }
  // Not `instanceof`: errors of sockets may come from another realm.
  if (!types.isNativeError(error)) return '';
  if (failureOf(error, 'connect') !== undefined) return 'away';
  if (HELD.has((error as { code?: unknown }).code)) return 'held';
  return causeOf(error.cause);
}
