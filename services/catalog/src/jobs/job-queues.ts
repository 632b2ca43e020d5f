import { MINUTE_MS, SECOND_MS } from '@mad/process';

/** Makes an admitted job in its tenant. */
export const MATERIALIZE = 'materialize';
/** Cancels a job in its tenant. */
export const CANCEL = 'cancel';
/** Fails a task execution whose workers were lost too often. */
export const FAIL_EXECUTION = 'fail-execution';

/** What the first two say. What to do is read from the job's row, so that a late message does no harm. */
export interface JobMessage {
  org_id: string;
  job_id: string;
}

/** What the third says. */
export interface ExecutionMessage {
  org_id: string;
  task_execution_id: string;
}

/** A tenant may be away or suspended for days; its jobs wait, and go on within a minute of its return. */
const PATIENT = { retryLimit: 100_000, retryDelayMs: SECOND_MS, retryDelayMaxMs: MINUTE_MS, expireMs: 15 * MINUTE_MS };

/** The queues of jobs. */
export const jobQueues = { [MATERIALIZE]: PATIENT, [CANCEL]: PATIENT, [FAIL_EXECUTION]: PATIENT };
