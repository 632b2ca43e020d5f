import { fromJson } from '@bufbuild/protobuf';
import { Code, ConnectError, type CallOptions } from '@connectrpc/connect';
import { MINUTE_MS, SECOND_MS } from '@mad/process';
import { TenantState } from '@mad/proto/provisioner';
import { TaskPlanSchema, type MaterializeJobResponse } from '@mad/proto/results';
import { reasonOf, rpcError } from '@mad/rpc';
import type { CatalogContext } from '../context.ts';
import type { JobRow } from '../db/entities/job.ts';
import { isEnded } from '../domain/job-progress.ts';
import { cachePolicyMessage } from '../rpc/job.ts';

const TENANT_SCHEMA = 'results';
/** A million molecules are read, hashed, looked up and written before results answers. */
const MATERIALIZE_MS = 10 * MINUTE_MS;
const ENSURE_MS = MINUTE_MS;
export const RESULTS_MS = 30 * SECOND_MS;

/** What running a job needs of its row. */
export type RunnableJob = Pick<
  JobRow,
  | 'org_id'
  | 'job_id'
  | 'pipeline_id'
  | 'pipeline_version_id'
  | 'status'
  | 'detail'
  | 'parameters'
  | 'plan'
  | 'cache_policy'
  | 'min_confidence'
  | 'max_age_s'
  | 'input_count'
  | 'created_by'
  | 'admitted_at'
  | 'materialized_at'
  | 'cancel_requested_at'
  | 'cancel_requested_by'
>;

/** Reads a job for running it; undefined when there is none. */
export async function readRunnableJob(
  { database }: CatalogContext,
  orgId: string,
  jobId: string,
): Promise<RunnableJob | undefined> {
  return database.inOrg(
    orgId,
    async (tx) => {
      const [row] = await tx.query<RunnableJob>(
        `SELECT org_id, job_id, pipeline_id, pipeline_version_id, status, detail, parameters, plan, cache_policy,
           min_confidence, max_age_s, input_count, created_by, admitted_at, materialized_at, cancel_requested_at, cancel_requested_by
         FROM catalog.jobs_meta WHERE org_id = $1 AND job_id = $2`,
        [orgId, jobId],
      );
      return row;
    },
    { readOnly: true },
  );
}

/** Why a job cannot begin yet, for people. */
function waitingFor(error: unknown): string {
  switch (reasonOf(error)) {
    case 'TENANT_NOT_PROVISIONED':
    case 'TENANT_PROVISIONING':
      return "waiting for the organization's database to be made";
    case 'PROVISIONING_FAILED':
      return `waiting: ${(error as ConnectError).rawMessage}; it is tried again`;
    case 'NO_SERVER_AVAILABLE':
      return "waiting: no server of the organization's region takes another database";
    case 'TENANT_SUSPENDED':
      // Suspended, or read-only.
      return `waiting: ${(error as ConnectError).rawMessage}`;
    case 'CONNECTION_BUDGET_EXHAUSTED':
    case 'DATABASE_UNAVAILABLE':
      return "waiting for the organization's database";
    default:
      return 'waiting: the job could not be begun yet, and is tried again';
  }
}

/** Tells the user why the job waits, where that is news. */
export async function noteWaiting({ database }: CatalogContext, job: RunnableJob, error: unknown): Promise<void> {
  const detail = waitingFor(error);
  if (job.detail === detail) return;
  await database.inOrg(job.org_id, (tx) =>
    tx.execute(
      `UPDATE catalog.jobs_meta SET detail = left($3, 4000), updated_at = now()
       WHERE org_id = $1 AND job_id = $2 AND status = 'pending'`,
      [job.org_id, job.job_id, detail],
    ),
  );
}

/** True when results says that it will never take this job. */
export function isRefusal(error: unknown): boolean {
  return error instanceof ConnectError && error.code === Code.InvalidArgument;
}

/** Whether nothing is left to do for the job. */
export function isOver(job: RunnableJob): boolean {
  return isEnded(job.status);
}

/** What results answers where the organization's database was not made yet, or could not be. */
const UNMADE = new Set(['TENANT_NOT_PROVISIONED', 'PROVISIONING_FAILED']);

/** Has the organization's database made, where the first job does that. Throws until it is ready, with the reason. */
async function ensureTenant(context: CatalogContext, orgId: string, signal?: AbortSignal): Promise<void> {
  const { region } = await context.organizations.require(orgId, 'reading');
  const request = { orgId, schema: TENANT_SCHEMA, region };
  const { tenant } = await context.tenants.ensureTenant(request, { timeoutMs: ENSURE_MS, signal });
  const about = { org_id: orgId, schema: TENANT_SCHEMA };
  switch (tenant?.state) {
    case TenantState.READY:
      return;
    case TenantState.FAILED: {
      const message = `making the organization's database failed: ${tenant.lastError}`;
      throw rpcError(Code.FailedPrecondition, 'PROVISIONING_FAILED', message, about);
    }
    case TenantState.SUSPENDED:
      throw rpcError(Code.FailedPrecondition, 'TENANT_SUSPENDED', 'the organization is suspended', about);
    case TenantState.READ_ONLY:
      throw rpcError(Code.FailedPrecondition, 'TENANT_SUSPENDED', 'the organization is read-only', about);
    default:
      throw rpcError(Code.Unavailable, 'TENANT_PROVISIONING', "the organization's database is being made", about);
  }
}

/**
 * Makes the job in its tenant, or asks how it stands where it is there already. Where organizations get their databases
 * with their first job, that is made too. Not inside a transaction.
 */
export async function materializeInTenant(
  context: CatalogContext,
  job: RunnableJob,
  signal?: AbortSignal,
): Promise<MaterializeJobResponse> {
  const request = {
    orgId: job.org_id,
    jobId: job.job_id,
    pipelineId: job.pipeline_id,
    pipelineVersionId: job.pipeline_version_id,
    tasks: job.plan.map((task) => fromJson(TaskPlanSchema, task)),
    inputCount: job.input_count,
    parameters: job.parameters,
    cachePolicy: cachePolicyMessage(job.cache_policy),
    minConfidence: job.min_confidence,
    maxAgeS: job.max_age_s,
    createdBy: job.created_by,
  };
  const options: CallOptions = { timeoutMs: MATERIALIZE_MS, signal };
  try {
    return await context.executions.materializeJob(request, options);
  } catch (error) {
    if (context.provisioning !== 'on_first_write' || !UNMADE.has(reasonOf(error) ?? '')) throw error;
    await ensureTenant(context, job.org_id, signal);
    return context.executions.materializeJob(request, options);
  }
}
