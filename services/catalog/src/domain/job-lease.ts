/** Where a task execution stands in the queue. */
export type QueuedTaskState = 'ready' | 'leased' | 'delayed' | 'failing';

/** After so many lost workers a task is taken for the cause. */
export const MAX_LOSSES = 3;

/** What becomes of a task whose lease ran out, `losses` counting this one; undefined leaves the queue. */
export function afterLoss(losses: number, jobMayQueue: boolean): 'ready' | 'failing' | undefined {
  if (!jobMayQueue) return undefined;
  return losses < MAX_LOSSES ? 'ready' : 'failing';
}

/** What becomes of a task that its worker gave back; undefined leaves the queue. */
export function afterReturn(delayMs: number, jobMayQueue: boolean): 'ready' | 'delayed' | undefined {
  if (!jobMayQueue) return undefined;
  return delayMs > 0 ? 'delayed' : 'ready';
}
