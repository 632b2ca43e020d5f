import { Code, ConnectError } from '@connectrpc/connect';
import { backoff, sleep } from '@mad/process';
import { isMessageTooLarge, reasonOf, retryAfterMsOf } from '@mad/rpc';

const PASSING = new Set([Code.Unavailable, Code.ResourceExhausted, Code.DeadlineExceeded]);
const WAIT = { baseMs: 100, maxMs: 5_000 };

/** Whether the same call, under the same attempt, may succeed later. */
export function isPassing(error: unknown): boolean {
  const { code } = ConnectError.from(error);
  if (isMessageTooLarge(error)) return false;
  return PASSING.has(code) || (code === Code.Aborted && reasonOf(error) === 'TENANT_MOVED');
}

/**
 * Calls until it succeeds or fails for good, waiting longer each time (or as long as the answer asks for). Ends with the
 * signal's reason when it is aborted: the lease's end is what bounds the waiting.
 */
export async function patiently<T>(call: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let attempt = 0; ; attempt += 1) {
    signal.throwIfAborted();
    try {
      return await call();
    } catch (error) {
      signal.throwIfAborted();
      if (!isPassing(error)) throw error;
      await sleep(Math.max(backoff(attempt, WAIT), retryAfterMsOf(error) ?? 0), signal);
    }
  }
}
