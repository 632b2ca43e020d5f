/**
 * How a task execution stands. `blocked` waits for earlier tasks or, once it was queued, for equal items that other jobs
 * compute; `queued` may be leased; `finished`, `failed` and `cancelled` are final.
 */
export const EXECUTION_STATUSES = ['blocked', 'queued', 'running', 'finished', 'failed', 'cancelled'] as const;
export type ExecutionStatus = (typeof EXECUTION_STATUSES)[number];

/** What the fence looks at. `attempt` is that of the lease last accepted, 0 before the first. */
export interface Fenced {
  status: ExecutionStatus;
  attempt: number;
}

export function hasEnded(status: ExecutionStatus): boolean {
  return status === 'finished' || status === 'failed' || status === 'cancelled';
}

/** True when catalog's queue should hold it. */
export function isAlive(status: ExecutionStatus): boolean {
  return status === 'queued' || status === 'running';
}

export type StartDecision = 'already_finished' | 'lease_lost' | 'repeat' | 'begin' | 'begin_again';

/**
 * What a lease of this attempt may do with the execution. Terminal comes first: whoever asks about work that is done
 * is told so, whatever his attempt, because only then does the queue hear of it. Then the fence: an older attempt has
 * lost. `begin_again` drops what the earlier attempt left; `repeat` is the same worker asking twice.
 */
export function decideStart(execution: Fenced, attempt: number): StartDecision {
  if (hasEnded(execution.status)) return 'already_finished';
  if (execution.status === 'blocked' || attempt < execution.attempt) return 'lease_lost';
  if (attempt === execution.attempt) return 'repeat';
  return execution.attempt === 0 ? 'begin' : 'begin_again';
}

/** True when outcomes of this attempt are taken: it is the one that runs. */
export function mayReport(execution: Fenced, attempt: number): boolean {
  return execution.status === 'running' && execution.attempt === attempt;
}

export type BatchDecision = 'take' | 'repeat' | 'gap';

/** What a batch of results of this number does to an attempt that has taken batches 1 … `taken`. */
export function decideBatch(taken: number, batch: number): BatchDecision {
  if (batch <= taken) return 'repeat';
  return batch === taken + 1 ? 'take' : 'gap';
}

export type FinishDecision = 'finish' | 'repeat' | 'lease_lost';

/** What this attempt's word that it has finished does. A repeat is answered again; a cancelled execution is lost. */
export function decideFinish(execution: Fenced, attempt: number): FinishDecision {
  if (execution.attempt !== attempt) return 'lease_lost';
  if (execution.status === 'running') return 'finish';
  return execution.status === 'finished' || execution.status === 'failed' ? 'repeat' : 'lease_lost';
}

export type FailDecision = 'fail' | 'already_ended' | 'lease_lost';

/** Whether catalog's word that the workers were lost ends it. Its attempt must be above every lease it knows of. */
export function decideFail(execution: Fenced, attempt: number): FailDecision {
  if (hasEnded(execution.status)) return 'already_ended';
  return attempt > execution.attempt ? 'fail' : 'lease_lost';
}

/** The status of a blocked execution whose earlier tasks have ended: nothing is left to run when all items were skipped. */
export function unblockedStatus(pendingItems: number): ExecutionStatus {
  return pendingItems > 0 ? 'queued' : 'finished';
}
