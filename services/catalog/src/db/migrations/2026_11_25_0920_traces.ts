import { defineMigration } from '@mad/postgres';

const check = (table: string): string =>
  `CONSTRAINT ${table}_traceparent_check CHECK (traceparent ~ '^(|00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})$')`;

/** A job's work belongs to the trace of the request that created it, whichever queue it waits in. */
export const Traces = defineMigration(import.meta.url, {
  up: `
ALTER TABLE catalog.jobs_meta ADD traceparent text NOT NULL DEFAULT '' ${check('jobs_meta')};
COMMENT ON COLUMN catalog.jobs_meta.traceparent IS 'Internal: the trace of the request that created it';
ALTER TABLE catalog.task_queue ADD traceparent text NOT NULL DEFAULT '' ${check('task_queue')};
COMMENT ON COLUMN catalog.task_queue.traceparent IS 'Internal: the job''s; the worker goes on with it';
`,
  down: `
ALTER TABLE catalog.task_queue DROP traceparent;
ALTER TABLE catalog.jobs_meta DROP traceparent;
`,
});
