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
  const waiting = await database.inOrg(
    orgId,
    async (tx) => {
      const [pace] = await tx.query<Pace>(PACE_SQL, [orgId]);
      return job.status === 'pending' ? forPlace(tx, orgId, jobId, pace!) : forWorker(tx, orgId, jobId, pace!);
    },
    { readOnly: true, signal },
  );
  return waiting && create(JobWaitingSchema, waiting);
}

async function forPlace(tx: Tx, orgId: string, jobId: string, pace: Pace): Promise<Waiting | undefined> {
  const [line] = await tx.query<{ limit: number; used: number; ahead: number }>(JOB_LINE_SQL, [orgId, jobId]);
  if (line === undefined) return undefined;
  const position = line.ahead + 1;
  return {
    reason: JobWaitReason.JOB_QUOTA,
    detail: `${waitingDetail(line.limit)}; ${before(line.ahead, 'job')}`,
    position: BigInt(position),
    quota: 'max_concurrent_jobs',
    limit: BigInt(line.limit),
    used: BigInt(line.used),
    estimatedWait: durationOf(jobWaitMs(position, line.limit, pace)),
  };
}

interface OwnTask {
  engine: string;
  used: number;
  limit: number;
  vtime: number;
  weight: number;
  ahead: number;
}

async function forWorker(tx: Tx, orgId: string, jobId: string, pace: Pace): Promise<Waiting | undefined> {
  const [task] = await tx.query<OwnTask>(OWN_TASKS_SQL, [orgId, jobId]);
  if (task === undefined) return forRetry(tx, orgId, jobId);
  const { engine, used, limit } = task;
  const free = used < limit;
  const ahead = task.ahead + (free ? await othersAhead(tx, task) : 0);
  const line = { engine, position: BigInt(ahead + 1), estimatedWait: durationOf(taskWaitMs(ahead + 1, pace)) };
  if (free) {
    const detail = `waiting for a worker with ${engine}: ${before(ahead, 'task')}`;
    return { reason: JobWaitReason.WORKER, detail, ...line };
  }
  return {
    reason: JobWaitReason.TASK_QUOTA,
    detail: `waiting for a task to end: the organization may run ${limit} at once; ${before(ahead, 'task')}`,
    quota: 'max_running_tasks',
    limit: BigInt(limit),
    used: BigInt(used),
    ...line,
  };
}

/** Tasks of other organizations whose turn comes first: a sum, of which nobody can tell whose they are. */
async function othersAhead(tx: Tx, { engine, vtime, weight, ahead }: OwnTask): Promise<number> {
  const turn = vtime + (ahead + 1) / weight;
  const [others] = await tx.query<{ ahead: string }>('SELECT catalog.tasks_ahead($1, $2) AS ahead', [engine, turn]);
  return Number(others!.ahead);
}

/** Nothing of the job is ready: a worker has just taken it, or what was given back waits for its time. */
async function forRetry(tx: Tx, orgId: string, jobId: string): Promise<Waiting | undefined> {
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
  return { reason: JobWaitReason.RETRY, detail, engine, estimatedWait };
}

const durationOf = (ms: number | undefined) => (ms === undefined ? undefined : durationFromMs(ms));
