/** How one work item stands; `pending` is the only status that changes. */
export const WORK_STATUSES = ['pending', 'cached', 'scored', 'failed', 'skipped', 'cancelled'] as const;
export type WorkStatus = (typeof WORK_STATUSES)[number];
/** How a work item can have ended. Final. */
export type EndedStatus = Exclude<WorkStatus, 'pending'>;

/** True when the item has a result to show. */
export function hasResult(status: WorkStatus): boolean {
  return status === 'scored' || status === 'cached';
}

/** True when an item of a later task cannot run because this one, its upstream, ended without a result. */
export function blocksDownstream(status: WorkStatus): boolean {
  return status === 'failed' || status === 'skipped' || status === 'cancelled';
}

/**
 * How an item ends that has the same input as an earlier one of its task and waited for it: with the earlier one's
 * result, counted as answered from it, or with the same misfortune.
 */
export function followerStatus(leader: EndedStatus): EndedStatus {
  return leader === 'scored' ? 'cached' : leader;
}

/** An error as an item keeps it. */
export interface ItemError {
  errorClass: string;
  errorMessage: string;
}

/**
 * The error of an item whose execution finished without a word about it: the engine's when it failed as a whole, else
 * MISSING_RESULT, so that no item is ever lost in silence.
 */
export function missingOutcome(engineError: ItemError | undefined): ItemError {
  return engineError ?? { errorClass: 'MISSING_RESULT', errorMessage: 'the engine finished without an outcome' };
}
