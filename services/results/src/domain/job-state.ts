import type { Counters } from './counters.ts';

/** How a job stands in its tenant. It is never `pending` here: catalog's word for a job that has not arrived. */
export type JobState = 'queued' | 'running' | 'completed' | 'failed' | 'cancelled';

/** True when the job cannot change any more. */
export function isEnded(state: JobState): boolean {
  return state === 'completed' || state === 'failed' || state === 'cancelled';
}

/**
 * The state of a job with these counters. An ended job stays as it is. One whose items have all ended is `cancelled`
 * when any item was, `completed` when any has a result, else `failed`: skipped items are somebody else's failure.
 */
export function jobStateOf(before: JobState, counters: Counters): JobState {
  if (isEnded(before) || counters.pending > 0) return before;
  if (counters.cancelled > 0) return 'cancelled';
  return counters.cached + counters.scored > 0 ? 'completed' : 'failed';
}

/** The state of a job one of whose executions a worker began. */
export function jobStateWhenBegun(before: JobState): JobState {
  return before === 'queued' ? 'running' : before;
}

/** Why a job failed, in words; empty when it did not. */
export function jobError(state: JobState, counters: Counters): string {
  if (state !== 'failed') return '';
  return `none of ${counters.requested} work items has a result: ${counters.failed} failed, ${counters.skipped} skipped`;
}
