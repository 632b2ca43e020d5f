import type { Tx } from '@mad/postgres';
import type { QueuedTaskState } from '../domain/job-lease.ts';

/** What a worker must have for a task. */
export interface TaskShape {
  engine: string;
  cores: number;
  /** MiB. */
  memory_mb: number;
}

/** A task that enters the queue (without `from`), changes its state there, or leaves it (without `to`). */
export interface QueueMove extends TaskShape {
  from?: QueuedTaskState;
  to?: QueuedTaskState;
}

/**
 * Takes the lock over an organization's part of the queue, until the transaction ends. Whoever changes anything there
 * takes it first, before a job's row and before tasks' rows, and holds one organization's only: so nobody deadlocks.
 * False when the organization never had a job.
 */
export async function lockOrgQueue(tx: Tx, orgId: string): Promise<boolean> {
  const found = await tx.query('SELECT 1 FROM catalog.org_queue WHERE org_id = $1 FOR NO KEY UPDATE', [orgId]);
  return found.length > 0;
}

/**
 * Changes an organization's counts. One that now can be served and could not before (it was idle, or at its cap) takes
 * its turn from those that can be served: with a clock left behind meanwhile it would get everything until it caught up.
 */
const SHIFT_SQL = `
  UPDATE catalog.org_queue q SET queued = q.queued + $2, running = q.running + $3, max_running = coalesce($4, q.max_running),
    vtime = CASE
      WHEN (q.queued = 0 OR q.running >= q.max_running)
        AND q.queued + $2 > 0 AND q.running + $3 < coalesce($4, q.max_running)
      THEN greatest(q.vtime, coalesce(
        (SELECT min(o.vtime) FROM catalog.org_queue o
           WHERE o.org_id <> $1 AND o.queued > 0 AND o.running < o.max_running),
        (SELECT max(o.vtime) FROM catalog.org_queue o)))
      ELSE q.vtime END
  WHERE q.org_id = $1 RETURNING q.queued, q.running, q.max_running`;

/** Changes how many tasks an organization may run at once. The caller holds its lock. */
export async function setMaxRunning(tx: Tx, orgId: string, maxRunning: number): Promise<void> {
  await tx.execute(SHIFT_SQL, [orgId, 0, 0, maxRunning]);
}

/**
 * Brings the counts to what was done to the tasks. The caller holds the organization's lock. Returns whether the
 * organization can be served now and could not before: it was idle, or at its cap.
 */
export async function countMoves(tx: Tx, orgId: string, moves: readonly QueueMove[]): Promise<boolean> {
  const depths = new Map<string, TaskShape & { change: number }>();
  let queued = 0;
  let running = 0;
  for (const { engine, cores, memory_mb, from, to } of moves) {
    const change = Number(to === 'ready') - Number(from === 'ready');
    running += Number(to === 'leased') - Number(from === 'leased');
    queued += change;
    const key = JSON.stringify([engine, cores, memory_mb]);
    const depth = depths.get(key) ?? { engine, cores, memory_mb, change: 0 };
    depth.change += change;
    depths.set(key, depth);
  }
  const entered = (queued !== 0 || running !== 0) && (await shift(tx, orgId, queued, running));
  const changed = [...depths.values()].filter(({ change }) => change !== 0);
  if (changed.length === 0) return entered;
  // Two statements: a row to be inserted is checked before it is found to be there, and a negative one is refused.
  await tx.execute(
    `WITH change AS (SELECT * FROM unnest($2::text[], $3::int[], $4::int[], $5::int[]) AS c (engine, cores, memory_mb, n)),
     more AS (
       INSERT INTO catalog.org_queue_depth AS d (org_id, engine, cores, memory_mb, queued)
       SELECT $1, engine, cores, memory_mb, n FROM change WHERE n > 0
       ON CONFLICT (org_id, engine, cores, memory_mb) DO UPDATE SET queued = d.queued + excluded.queued)
     UPDATE catalog.org_queue_depth d SET queued = d.queued + n FROM change c
     WHERE n < 0 AND d.org_id = $1 AND d.engine = c.engine AND d.cores = c.cores AND d.memory_mb = c.memory_mb`,
    [
      orgId,
      changed.map(({ engine }) => engine),
      changed.map(({ cores }) => cores),
      changed.map(({ memory_mb }) => memory_mb),
      changed.map(({ change }) => change),
    ],
  );
  return entered;
}

async function shift(tx: Tx, orgId: string, queued: number, running: number): Promise<boolean> {
  const [now] = await tx.query<{ queued: number; running: number; max_running: number }>(SHIFT_SQL, [
    orgId,
    queued,
    running,
    null,
  ]);
  const servable = (ready: number, busy: number): boolean => ready > 0 && busy < now!.max_running;
  return servable(now!.queued, now!.running) && !servable(now!.queued - queued, now!.running - running);
}
