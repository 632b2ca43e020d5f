import { defineMigration } from '@mad/postgres';

/** How much of the queue is an organization's is asked with every new job: without this the whole queue was read. */
export const QueueByOrganization = defineMigration(import.meta.url, {
  up: 'CREATE INDEX idx_task_queue_org_id ON catalog.task_queue (org_id);',
  down: 'DROP INDEX catalog.idx_task_queue_org_id;',
});
