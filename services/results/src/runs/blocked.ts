/**
 * The two kinds of executions `e` that are blocked. Who was queued once and is blocked again waits for another job
 * (`coalesce.ts`); who never was waits for earlier tasks of its own.
 */
export const AWAITS_EARLIER_TASK = `e.status = 'blocked' AND e.queued_at IS NULL`;
export const AWAITS_OTHER_JOB = `e.status = 'blocked' AND e.queued_at IS NOT NULL`;
