import { create, toJson } from '@bufbuild/protobuf';
import { Code, type ConnectError } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { currentSpan, SECOND_MS, traceparentOf, uuidv7 } from '@mad/process';
import type { CreateJobRequest, PipelineVersion } from '@mad/proto/catalog';
import { TaskPlanSchema } from '@mad/proto/results';
import { QuotaFailureSchema } from '@mad/proto/rpc';
import { invalid, notFound, rpcError } from '@mad/rpc';
import type { CatalogContext } from '../context.ts';
import { plannedTasks, waitingDetail } from '../domain/job-quota.ts';
import type { OrganizationQuotas } from '../organizations.ts';
import { planTasks, type PlannedJob } from '../plan.ts';
import { cachePolicyOf, JOB_COLUMNS, type JobView } from '../rpc/job.ts';
import { readPipeline } from '../rpc/pipeline-rows.ts';
import { admitJobs } from './admit.ts';
import { freezeInput } from './job-input.ts';

/** The caller tries at once; the message is for when it cannot. */
const AFTER_CALLER_MS = 3 * SECOND_MS;

/** A job that only has to be written down. */
export interface ResolvedJob {
  request: CreateJobRequest;
  version: PipelineVersion;
  planned: PlannedJob;
}

/**
 * Finds the published version and plans its tasks. Throws NOT_FOUND for a pipeline the organization cannot see,
 * INVALID_ARGUMENT naming `version` or `parameters.<name>`. Not inside a transaction.
 */
export async function resolveJob(
  context: CatalogContext,
  orgId: string,
  request: CreateJobRequest,
): Promise<ResolvedJob> {
  return { request, ...(await resolveVersion(context, orgId, request)) };
}

/** What `resolveJob` does, of whatever names a version and gives it parameters. */
export async function resolveVersion(
  context: CatalogContext,
  orgId: string,
  request: Pick<CreateJobRequest, 'pipelineId' | 'version' | 'parameters'>,
): Promise<Omit<ResolvedJob, 'request'>> {
  const { pipelineId, version: wanted } = request;
  const version = await context.pipelineVersions.published(orgId, pipelineId, wanted);
  if (!version) {
    await context.database.inOrg(orgId, (tx) => readPipeline(tx, orgId, pipelineId), { readOnly: true });
    const description = wanted === 0 ? 'the pipeline has no published version' : `version ${wanted} is not published`;
    throw invalid('version', description);
  }
  const planned = await planTasks(context, orgId, version.spec!, request.parameters ?? {});
  return { version, planned };
}

function quotaExceeded(orgId: string, limit: number, queued: number, planned: number): ConnectError {
  const description = `the job has ${planned} tasks, ${queued} wait already, the organization's limit is ${limit}`;
  const metadata = { quota: 'max_queued_tasks', limit: `${limit}` };
  const violations = [{ subject: `organizations/${orgId}`, description }];
  const options = { details: [{ desc: QuotaFailureSchema, value: { violations } }] };
  return rpcError(Code.ResourceExhausted, 'QUOTA_EXCEEDED', `max_queued_tasks: ${description}`, metadata, options);
}

/** Throws QUOTA_EXCEEDED when the job's tasks would be more than may wait. The caller holds the organization's lock. */
async function requireQueueRoom(tx: Tx, orgId: string, quotas: OrganizationQuotas, planned: number): Promise<void> {
  const [now] = await tx.query<{ queued: number }>(
    `SELECT (SELECT count(*) FROM catalog.task_queue WHERE org_id = $1)::int
       + (SELECT coalesce(sum(planned_tasks), 0) FROM catalog.jobs_meta
          WHERE org_id = $1 AND status IN ('pending', 'queued', 'running') AND materialized_at IS NULL)::int AS queued`,
    [orgId],
  );
  const { queued } = now!;
  if (queued + planned > quotas.maxQueuedTasks) throw quotaExceeded(orgId, quotas.maxQueuedTasks, queued, planned);
}

/** Takes the organization's lock, with its first job making the row. */
async function openOrgQueue(tx: Tx, orgId: string, quotas: OrganizationQuotas): Promise<void> {
  await tx.execute(
    `INSERT INTO catalog.org_queue (org_id, max_running, max_concurrent_jobs) VALUES ($1, $2, $3)
     ON CONFLICT (org_id) DO UPDATE SET max_concurrent_jobs = excluded.max_concurrent_jobs`,
    [orgId, quotas.maxRunningTasks, quotas.maxConcurrentJobs],
  );
}

/**
 * Writes a job down in one transaction: its input frozen, its quota taken, its record made, and, where it gets one of the
 * organization's places, the message sent that begins it. Everything it will do is decided here.
 */
export async function createJob(
  { boss }: CatalogContext,
  tx: Tx,
  who: { orgId: string; userId: string; quotas: OrganizationQuotas },
  { request, version, planned }: ResolvedJob,
): Promise<JobView> {
  const { orgId, userId, quotas } = who;
  const input = await freezeInput(tx, who, request);
  const tasks = planned.tasks.map((task) => create(TaskPlanSchema, task));
  const taskCount = plannedTasks(tasks, input.count);
  await openOrgQueue(tx, orgId, quotas);
  await requireQueueRoom(tx, orgId, quotas, taskCount);
  const jobId = uuidv7();
  const span = currentSpan();
  await tx.execute(
    `INSERT INTO catalog.jobs_meta (job_id, org_id, pipeline_id, pipeline_version_id, molecule_set_id, name, detail,
       priority, labels, parameters, plan, cache_policy, min_confidence, max_age_s, input_count, planned_tasks,
       created_by, traceparent)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`,
    [
      jobId,
      orgId,
      request.pipelineId,
      version.pipelineVersionId,
      input.moleculeSetId,
      request.name,
      waitingDetail(quotas.maxConcurrentJobs),
      request.priority,
      JSON.stringify(request.labels),
      JSON.stringify(planned.parameters),
      JSON.stringify(tasks.map((task) => toJson(TaskPlanSchema, task))),
      cachePolicyOf(request.cachePolicy),
      request.minConfidence,
      request.maxAgeS,
      input.count,
      taskCount,
      userId,
      span === undefined ? '' : traceparentOf(span),
    ],
  );
  await admitJobs(tx, boss, orgId, { delayMs: AFTER_CALLER_MS });
  return readJob(tx, orgId, jobId);
}

/** A job of the organization. Throws NOT_FOUND. */
export async function readJob(tx: Tx, orgId: string, jobId: string): Promise<JobView> {
  const [row] = await tx.query<JobView>(
    `SELECT ${JOB_COLUMNS} FROM catalog.jobs_meta WHERE org_id = $1 AND job_id = $2`,
    [orgId, jobId],
  );
  if (!row) throw notFound('job', jobId);
  return row;
}
