import type { Tx } from '@mad/postgres';

/** What a worker can take now. */
export interface Claim {
  worker: string;
  /** With versions, e.g. `vina@1.2.3`. */
  engines: readonly string[];
  maxTasks: number;
  freeCores: number;
  /** MiB. */
  freeMemoryMb: number;
}

/** A task that a worker holds until the lease ends. */
export interface LeasedRow {
  org_id: string;
  job_id: string;
  task_execution_id: string;
  attempt: number;
  engine: string;
  cores: number;
  /** MiB. */
  memory_mb: number;
  lease_expires_at: Date;
  queued_at: Date;
  /** Of the request that created the job; empty when it had none. */
  traceparent: string;
}

export const LEASED_COLUMNS = `t.org_id, t.job_id, t.task_execution_id, t.attempt, t.engine, t.cores, t.memory_mb,
  t.lease_expires_at, t.queued_at, t.traceparent`;

/** The kinds of task an organization has ready and the worker can run: $1 engines, $2 cores, $3 MiB. */
const RUNNABLE_DEPTH = 'd.queued > 0 AND d.engine = ANY ($1::text[]) AND d.cores <= $2 AND d.memory_mb <= $3';

/**
 * Nobody is owed more tasks than this. Clocks of organizations that use other engines run at other speeds: one that comes
 * over with an old clock gets this many first, and not everything for hours.
 */
const MAX_LAG = 100;

/**
 * Takes tasks from the organizations furthest behind that have room, at most its room and its share from each, and moves
 * their clocks. Counts are read from rows locked in this statement, so no cap is exceeded however many claim; an
 * organization whose row somebody holds has its turn there, and its share is left to it. $4 = tasks wanted, $5 = worker,
 * $6 = lease in ms. Tasks are dealt out like cards: the first of everybody, the second of everybody …, by the clocks. (A CHECK that running is within the cap cannot be had: the statement tries it on the row as it was before
 * another's commit, which is not the row it writes.)
 */
const CLAIM_SQL = `
WITH eligible AS MATERIALIZED (
  SELECT q.org_id, q.vtime FROM catalog.org_queue q
  WHERE q.queued > 0 AND q.running < q.max_running
    AND EXISTS (SELECT FROM catalog.org_queue_depth d WHERE d.org_id = q.org_id AND ${RUNNABLE_DEPTH})
), field AS MATERIALIZED (
  SELECT count(*)::int AS size, ceil($4::float8 / greatest(count(*), 1))::int AS share, max(vtime) AS furthest FROM eligible
), orgs AS MATERIALIZED (
  SELECT q.org_id, q.vtime, q.weight, q.max_running - q.running AS room
  FROM eligible e JOIN catalog.org_queue q ON q.org_id = e.org_id
  WHERE q.queued > 0 AND q.running < q.max_running
  ORDER BY q.vtime, q.org_id LIMIT $4 FOR NO KEY UPDATE OF q SKIP LOCKED
), pick AS MATERIALIZED (
  SELECT o.org_id, o.vtime, o.weight, least(o.room, f.share) AS most, task.*,
    row_number() OVER (PARTITION BY o.org_id ORDER BY task.priority DESC, task.task_execution_id) AS place
  FROM field f CROSS JOIN orgs o JOIN catalog.org_queue_depth d ON d.org_id = o.org_id CROSS JOIN LATERAL (
    SELECT t.task_execution_id, t.cores, t.memory_mb, t.priority FROM catalog.task_queue t
    WHERE t.org_id = o.org_id AND t.engine = d.engine AND t.cores = d.cores AND t.memory_mb = d.memory_mb AND t.state = 'ready'
    ORDER BY t.priority DESC, t.task_execution_id LIMIT least(o.room, f.share) FOR UPDATE OF t SKIP LOCKED
  ) task
  WHERE ${RUNNABLE_DEPTH}
), fits AS MATERIALIZED (
  SELECT task_execution_id FROM (
    SELECT pick.*, row_number() OVER dealt AS n, sum(cores) OVER dealt AS all_cores, sum(memory_mb) OVER dealt AS all_memory
    FROM pick WHERE place <= most WINDOW dealt AS (ORDER BY vtime + place / weight, task_execution_id)
  ) dealt WHERE n <= $4 AND all_cores <= $2 AND all_memory <= $3
), leased AS (
  UPDATE catalog.task_queue t SET state = 'leased', attempt = t.attempt + 1, worker = $5,
    lease_expires_at = now() + $6 * interval '1 ms'
  FROM fits WHERE t.task_execution_id = fits.task_execution_id AND t.state = 'ready' RETURNING ${LEASED_COLUMNS}
), clocks AS (
  UPDATE catalog.org_queue q SET running = q.running + c.n, queued = q.queued - c.n,
    vtime = greatest(q.vtime, f.furthest - ${MAX_LAG}) + c.n / q.weight
  FROM field f CROSS JOIN (SELECT org_id, count(*)::int AS n FROM leased GROUP BY org_id) c WHERE q.org_id = c.org_id
), depths AS (
  UPDATE catalog.org_queue_depth d SET queued = d.queued - c.n
  FROM (SELECT org_id, engine, cores, memory_mb, count(*)::int AS n FROM leased GROUP BY 1, 2, 3, 4) c
  WHERE d.org_id = c.org_id AND d.engine = c.engine AND d.cores = c.cores AND d.memory_mb = c.memory_mb
)
SELECT leased.*, f.size < $4 AS few FROM leased CROSS JOIN field f`;

/** Where few have more than one task to give, some have less than their share: what they leave is dealt again. */
const MAX_PASSES = 4;

/** Leases tasks to a worker, fairly between organizations. Run it under the second login, in a transaction of its own. */
export async function claimTasks(tx: Tx, claim: Claim, leaseMs: number): Promise<LeasedRow[]> {
  const leased: LeasedRow[] = [];
  let { maxTasks, freeCores, freeMemoryMb } = claim;
  for (let pass = 0; pass < MAX_PASSES && maxTasks > 0 && freeCores > 0 && freeMemoryMb > 0; pass += 1) {
    const rows = await tx.query<LeasedRow & { few: boolean }>(CLAIM_SQL, [
      claim.engines,
      freeCores,
      freeMemoryMb,
      maxTasks,
      claim.worker,
      leaseMs,
    ]);
    leased.push(...rows);
    // Where there are as many organizations as tasks are wanted, what is missing is with those that others serve now.
    if (!rows[0]?.few) break;
    maxTasks -= rows.length;
    for (const { cores, memory_mb: memoryMb } of rows) {
      freeCores -= cores;
      freeMemoryMb -= memoryMb;
    }
  }
  return leased;
}

/** Whether the worker could be given something if nobody held the rows of who has it. */
export async function hasClaimable(tx: Tx, { engines, freeCores, freeMemoryMb }: Claim): Promise<boolean> {
  const found = await tx.query(
    `SELECT 1 FROM catalog.org_queue q JOIN catalog.org_queue_depth d ON d.org_id = q.org_id
     WHERE q.queued > 0 AND q.running < q.max_running AND ${RUNNABLE_DEPTH} LIMIT 1`,
    [engines, freeCores, freeMemoryMb],
  );
  return found.length > 0;
}
