import { AUDIT, AUDIT_QUEUE } from './audit.ts';
import { jobQueues } from './jobs/job-queues.ts';

/** Deletes what has expired. */
export const HOUSEKEEPING = 'housekeeping';

/** The queues of catalog. */
export const catalogQueues = {
  [AUDIT]: AUDIT_QUEUE,
  [HOUSEKEEPING]: {},
  ...jobQueues,
};
