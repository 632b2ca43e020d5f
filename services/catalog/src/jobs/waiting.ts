import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import type { HandlerContext } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { JobWaitingSchema, JobWaitReason, type JobWaiting } from '@mad/proto/catalog';
import type { CatalogContext } from '../context.ts';
import { waitingDetail } from '../domain/job-quota.ts';
import { before, jobWaitMs, taskWaitMs, type Pace } from '../domain/waiting.ts';
import type { JobView } from '../rpc/job.ts';

/** So many of the last completed jobs say how long one takes. */
const LAST_JOBS = 20;

const PACE_SQL = `
  SELECT avg(extract(epoch FROM ended_at - admitted_at))::float8 AS "jobSeconds",
    (sum(extract(epoch FROM ended_at - materialized_at)) / nullif(sum(planned_tasks), 0))::float8 AS "taskSeconds"
  FROM (SELECT admitted_at, materialized_at, ended_at, planned_tasks FROM catalog.jobs_meta
    WHERE org_id = $1 AND status = 'completed' ORDER BY created_at DESC LIMIT ${LAST_JOBS}) last`;

const JOB_LINE_SQL = `
  SELECT q.max_concurrent_jobs AS "limit",
    (SELECT count(*)::int FROM catalog.jobs_meta
       WHERE org_id = $1 AND status IN ('pending', 'queued', 'running') AND admitted_at IS NOT NULL) AS used,
    (SELECT count(*)::int FROM catalog.jobs_meta o JOIN catalog.jobs_meta j ON j.org_id = $1 AND j.job_id = $2
       WHERE o.org_id = $1 AND o.status = 'pending' AND o.admitted_at IS NULL
         AND (o.priority > j.priority OR (o.priority = j.priority AND o.job_id < j.job_id))) AS ahead
  FROM catalog.org_queue q WHERE q.org_id = $1`;

/** The job's next task, the organization's tasks before it, and how the organization stands. */
const OWN_TASKS_SQL = `
  SELECT t.engine, q.running AS used, q.max_running AS "limit", q.vtime, q.weight,
    (SELECT count(*)::int FROM catalog.task_queue o
       WHERE o.org_id = $1 AND o.state = 'ready' AND o.engine = t.engine
         AND (o.priority > t.priority OR (o.priority = t.priority AND o.task_execution_id < t.task_execution_id))) AS ahead
  FROM catalog.task_queue t JOIN catalog.org_queue q ON q.org_id = t.org_id
  WHERE t.org_id = $1 AND t.job_id = $2 AND t.state = 'ready'
  ORDER BY t.priority DESC, t.task_execution_id LIMIT 1`;

/** A count alone leaves here: whose tasks they are is nobody's business. $2 = engine, $3 = the clock at its turn. */
const OTHERS_SQL = `
  SELECT coalesce(sum(least(d.queued, q.max_running - q.running, ceil(($3::float8 - q.vtime) * q.weight) - 1)), 0)::float8 AS ahead
  FROM catalog.org_queue q
  JOIN (SELECT org_id, sum(queued) AS queued FROM catalog.org_queue_depth WHERE engine = $2 AND queued > 0 GROUP BY org_id) d
    ON d.org_id = q.org_id
  WHERE q.org_id <> $1 AND q.queued > 0 AND q.running < q.max_running
    AND ceil(($3::float8 - q.vtime) * q.weight) > 1`;

type Waiting = MessageInitShape<typeof JobWaitingSchema>;

/** What a pending or queued job waits for, with its place in the line; undefined for any other. */
export async function waitingOf(
  { database }: CatalogContext,
  job: Pick<JobView, 'org_id' | 'job_id' | 'status' | 'admitted_at' | 'detail'>,
  { signal }: Pick<HandlerContext, 'signal'>,
): Promise<JobWaiting | undefined> {
  const { org_id: orgId, job_id: jobId } = job;
  if (job.status !== 'pending' && job.status !== 'queued') return undefined;
  if (job.status === 'pending' && job.admitted_at !== null) {
    const detail = job.detail || "being written into the organization's database";
    return create(JobWaitingSchema, { reason: JobWaitReason.TENANT, detail });
  }
  const found = await database.inOrg(
    orgId,
    async (tx) => {
      const [pace] = await tx.query<Pace>(PACE_SQL, [orgId]);
      return job.status === 'pending' ? forPlace(tx, orgId, jobId, pace!) : forWorker(tx, orgId, jobId, pace!);
    },
    { readOnly: true, signal },
  );
  if (found === undefined) return undefined;
  const { waiting, turn, pace } = found;
  if (turn === undefined) return create(JobWaitingSchema, waiting);
  const [others] = await database.asSystem((tx) => tx.query<{ ahead: number }>(OTHERS_SQL, turn.parameters), {
    signal,
  });
  const ahead = turn.ahead + others!.ahead;
  return create(JobWaitingSchema, {
    ...waiting,
    detail: `waiting for a worker with ${waiting.engine}: ${before(ahead, 'task')}`,
    position: BigInt(ahead + 1),
    estimatedWait: durationOf(taskWaitMs(ahead + 1, pace)),
  });
}

/** The organization's part of an answer; `turn` where the other organizations' tasks count too. */
interface Found {
  waiting: Waiting;
  turn?: { ahead: number; parameters: unknown[] };
  pace: Pace;
}

async function forPlace(tx: Tx, orgId: string, jobId: string, pace: Pace): Promise<Found | undefined> {
  const [line] = await tx.query<{ limit: number; used: number; ahead: number }>(JOB_LINE_SQL, [orgId, jobId]);
  if (line === undefined) return undefined;
  const position = line.ahead + 1;
  const waiting = {
    reason: JobWaitReason.JOB_QUOTA,
    detail: `${waitingDetail(line.limit)}; ${before(line.ahead, 'job')}`,
    position: BigInt(position),
    quota: 'max_concurrent_jobs',
    limit: BigInt(line.limit),
    used: BigInt(line.used),
    estimatedWait: durationOf(jobWaitMs(position, line.limit, pace)),
  };
  return { waiting, pace };
}

interface OwnTask {
  engine: string;
  used: number;
  limit: number;
  vtime: number;
  weight: number;
  ahead: number;
}

async function forWorker(tx: Tx, orgId: string, jobId: string, pace: Pace): Promise<Found | undefined> {
  const [task] = await tx.query<OwnTask>(OWN_TASKS_SQL, [orgId, jobId]);
  if (task === undefined) return forRetry(tx, orgId, jobId, pace);
  const { engine, used, limit, ahead } = task;
  if (used < limit) {
    const turn = { ahead, parameters: [orgId, engine, task.vtime + (ahead + 1) / task.weight] };
    return { waiting: { reason: JobWaitReason.WORKER, engine }, turn, pace };
  }
  const detail = `waiting for a task to end: the organization may run ${limit} at once; ${before(ahead, 'task')}`;
  const waiting = {
    reason: JobWaitReason.TASK_QUOTA,
    detail,
    position: BigInt(ahead + 1),
    quota: 'max_running_tasks',
    limit: BigInt(limit),
    used: BigInt(used),
    engine,
    estimatedWait: durationOf(taskWaitMs(ahead + 1, pace)),
  };
  return { waiting, pace };
}

/** Nothing of the job is ready: a worker has just taken it, or what was given back waits for its time. */
async function forRetry(tx: Tx, orgId: string, jobId: string, pace: Pace): Promise<Found | undefined> {
  const [delayed] = await tx.query<{ engine: string; not_before: Date }>(
    `SELECT engine, not_before FROM catalog.task_queue
     WHERE org_id = $1 AND job_id = $2 AND state = 'delayed'
       AND NOT EXISTS (SELECT FROM catalog.task_queue WHERE org_id = $1 AND job_id = $2 AND state = 'leased')
     ORDER BY not_before LIMIT 1`,
    [orgId, jobId],
  );
  if (delayed === undefined) return undefined;
  const { engine, not_before: notBefore } = delayed;
  const detail = `its tasks were given back and are offered again from ${notBefore.toISOString()}`;
  const estimatedWait = durationOf(Math.max(0, notBefore.getTime() - Date.now()));
  return { waiting: { reason: JobWaitReason.RETRY, detail, engine, estimatedWait }, pace };
}

const durationOf = (ms: number | undefined) => (ms === undefined ? undefined : durationFromMs(ms));
