/** Bounds of a wait between attempts, in milliseconds. */
export interface BackoffOptions {
  baseMs: number;
  maxMs: number;
}

/**
 * How long to wait before repeating an attempt that failed, in milliseconds. `attempt` counts from 0. Full jitter: anything
 * from 0 to min(maxMs, baseMs · 2^attempt), so that callers who failed together do not come back together.
 */
export function backoff(attempt: number, { baseMs, maxMs }: BackoffOptions): number {
  return Math.random() * Math.min(maxMs, baseMs * 2 ** attempt);
}
