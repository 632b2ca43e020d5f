import { openBoss, type Boss, type Database } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { metadataDatabase, type TestDatabase } from '@mad/testing';
import pg from 'pg';
import { catalogMigrations, openCatalogDatabase } from '../src/index.ts';
import type { Claim } from '../src/jobs/claim.ts';
import { enqueue } from '../src/jobs/enqueue.ts';
import { lockOrgQueue, type TaskShape } from '../src/jobs/org-queue.ts';
import { catalogQueues } from '../src/queues.ts';
import { silent } from './neighbours.ts';

/** As many claimers and settlers as the tests have at once. */
const SYSTEM_POOL = 16;

/** What `rdkit.similarity` takes. */
export const SMALL: TaskShape = { engine: 'rdkit@1', cores: 1, memory_mb: 256 };

/** A worker with room for everything. */
export const ANYTHING: Claim = {
  worker: 'w',
  engines: ['rdkit@1', 'vina@1'],
  maxTasks: 1,
  freeCores: 1_000,
  freeMemoryMb: 1_000_000,
};

/** The queue alone: catalog's schema, and organizations with jobs that nobody materialized. */
export interface QueueWorld {
  database: Database;
  boss: Boss;
  /** Past row-level security. */
  admin: pg.Pool;
  /** An organization with one job; its tasks are queued by `fill`. */
  organization(options?: { maxRunning?: number; vtime?: number }): Promise<{ orgId: string; jobId: string }>;
  /** Queues so many tasks of a job. Returns their ids. */
  fill(job: { orgId: string; jobId: string }, count: number, shape?: TaskShape, priority?: number): Promise<string[]>;
  /** Organizations whose counts are not what a recount of the tasks gives; empty unless there is a bug. */
  miscounted(): Promise<unknown[]>;
  /** Takes every organization and job away. */
  clear(): Promise<void>;
  close(): Promise<void>;
}

/** Everything counted anew from the tasks, beside what was kept. */
const RECOUNT_SQL = `
  WITH told AS (
    SELECT q.org_id, q.queued, q.running, coalesce(sum(d.queued), 0)::int AS depth
    FROM catalog.org_queue q LEFT JOIN catalog.org_queue_depth d ON d.org_id = q.org_id GROUP BY q.org_id
  ), counted AS (
    SELECT q.org_id, count(*) FILTER (WHERE t.state = 'ready')::int AS queued,
      count(*) FILTER (WHERE t.state = 'leased')::int AS running
    FROM catalog.org_queue q LEFT JOIN catalog.task_queue t ON t.org_id = q.org_id GROUP BY q.org_id
  ), depths AS (
    SELECT coalesce(d.org_id, t.org_id) AS org_id, coalesce(d.queued, 0) - coalesce(t.n, 0) AS difference
    FROM catalog.org_queue_depth d FULL JOIN (
      SELECT org_id, engine, cores, memory_mb, count(*)::int AS n FROM catalog.task_queue WHERE state = 'ready'
      GROUP BY 1, 2, 3, 4) t USING (org_id, engine, cores, memory_mb)
  )
  SELECT t.*, c.queued AS counted_queued, c.running AS counted_running FROM told t JOIN counted c USING (org_id)
  WHERE t.queued <> c.queued OR t.running <> c.running OR t.depth <> c.queued
    OR EXISTS (SELECT FROM depths d WHERE d.org_id = t.org_id AND d.difference <> 0)`;

export async function startQueueWorld(): Promise<QueueWorld> {
  const db: TestDatabase = await metadataDatabase({ services: [{ schema: 'catalog', migrations: catalogMigrations }] });
  const url = db.url('mad_catalog');
  const database = await openCatalogDatabase({
    url: db.pooledUrl('mad_catalog'),
    systemUrl: db.pooledUrl('mad_catalog_system'),
    systemPoolSize: SYSTEM_POOL,
  });
  const boss = await openBoss({ url, schema: 'catalog_boss', logger: silent, queues: catalogQueues });
  const admin = new pg.Pool({ connectionString: db.adminUrl, max: 4 });
  // The drop of the database may cut a connection that is closing.
  admin.on('error', () => {});
  return {
    database,
    boss,
    admin,
    async organization({ maxRunning = 1_000_000, vtime = 0 } = {}) {
      const orgId = uuidv7();
      const jobId = uuidv7();
      await admin.query(
        `INSERT INTO catalog.org_queue (org_id, max_running, max_concurrent_jobs, vtime) VALUES ($1, $2, 10, $3)`,
        [orgId, maxRunning, vtime],
      );
      await admin.query(`INSERT INTO catalog.molecule_sets (org_id, molecule_set_id, created_by) VALUES ($1, $1, $1)`, [
        orgId,
      ]);
      await admin.query(
        `INSERT INTO catalog.jobs_meta (job_id, org_id, pipeline_id, pipeline_version_id, molecule_set_id, parameters,
           plan, input_count, planned_tasks, created_by, status, admitted_at)
         VALUES ($2, $1, $1, $1, $1, '{}', '[]', 1, 1, $1, 'queued', now())`,
        [orgId, jobId],
      );
      return { orgId, jobId };
    },
    async fill({ orgId, jobId }, count, shape = SMALL, priority = 0) {
      const { engine, cores, memory_mb: memoryMb } = shape;
      const runnable = Array.from({ length: count }, () => ({ taskExecutionId: uuidv7(), engine, cores, memoryMb }));
      await database.asSystem(async (tx) => {
        await lockOrgQueue(tx, orgId);
        await enqueue(tx, { orgId, jobId, priority, traceparent: '' }, runnable);
      });
      return runnable.map(({ taskExecutionId }) => taskExecutionId);
    },
    async miscounted() {
      return (await admin.query(RECOUNT_SQL)).rows;
    },
    async clear() {
      await admin.query(
        `DELETE FROM catalog.task_queue; DELETE FROM catalog.org_queue_depth; DELETE FROM catalog.org_queue;
         DELETE FROM catalog.jobs_meta; DELETE FROM catalog.molecule_sets`,
      );
    },
    async close() {
      await boss.close();
      await database.close();
      await admin.end();
      await db.drop();
    },
  };
}
