/** The tables of jobs and their queue; jobs-schema.test.ts and job-service.test.ts are about them. */
export const JOB_TABLES = ['jobs_meta', 'org_queue', 'org_queue_depth', 'task_queue'];
