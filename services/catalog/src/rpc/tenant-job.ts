import { create } from '@bufbuild/protobuf';
import { Code, ConnectError, type HandlerContext } from '@connectrpc/connect';
import { SECOND_MS } from '@mad/process';
import { TenantAvailability, TenantJobSchema, type TenantJob } from '@mad/proto/catalog';
import { reasonOf } from '@mad/rpc';
import type { CatalogContext } from '../context.ts';
import type { JobView } from './job.ts';

/** How long a reader waits for the tenant's part of a job; the light part is there already. */
export const TENANT_PATIENCE_MS = 2 * SECOND_MS;

/**
 * The job as its organization's own database has it, asked of results; where that does not answer in time, which way and
 * why. Never throws.
 */
export async function tenantJob(
  { jobRuns, logger }: CatalogContext,
  job: Pick<JobView, 'org_id' | 'job_id' | 'admitted_at'>,
  { signal }: Pick<HandlerContext, 'signal'>,
): Promise<TenantJob> {
  // Nothing was sent there yet, and a tenant is not opened for nothing.
  if (job.admitted_at === null) return without(TenantAvailability.NOT_MATERIALIZED, 'the job has not begun');
  try {
    const options = { timeoutMs: TENANT_PATIENCE_MS, signal };
    const { jobRun } = await jobRuns.describeJobRun({ orgId: job.org_id, jobId: job.job_id }, options);
    const { state, counters, eventSeq, inputSignature, startTime, endTime, error } = jobRun!;
    const tasks = jobRun!.tasks.map(({ taskId, task, engine, counters: counts, scoreUnits, lowerIsBetter }) => {
      return { taskId, task, engine, counters: counts, scoreUnits, lowerIsBetter };
    });
    const known = { state, counters, eventSeq, inputSignature, startTime, endTime, error, tasks };
    return create(TenantJobSchema, { availability: TenantAvailability.AVAILABLE, ...known });
  } catch (error) {
    const answer = refusal(error);
    if (answer.availability === TenantAvailability.UNAVAILABLE) {
      logger.warn({ error, org_id: job.org_id, job_id: job.job_id }, "the tenant's part of a job is not to be had");
    }
    return answer;
  }
}

/** Which of the ways not to answer this was. Foreign errors are told in general words. */
function refusal(error: unknown): TenantJob {
  const reason = reasonOf(error) ?? '';
  const { code, rawMessage } = ConnectError.from(error);
  if (code === Code.NotFound) {
    return without(TenantAvailability.NOT_MATERIALIZED, "the job is not in the organization's database yet");
  }
  switch (reason) {
    case 'TENANT_NOT_PROVISIONED':
    case 'TENANT_PROVISIONING':
    case 'PROVISIONING_FAILED':
      return without(TenantAvailability.NOT_PROVISIONED, rawMessage, reason);
    case 'TENANT_SUSPENDED':
      return without(TenantAvailability.SUSPENDED, rawMessage, reason);
    case 'CONNECTION_BUDGET_EXHAUSTED':
    case 'DATABASE_UNAVAILABLE':
    case 'TENANT_MOVED':
      return without(TenantAvailability.UNAVAILABLE, rawMessage, reason);
    default:
      return without(
        TenantAvailability.UNAVAILABLE,
        code === Code.DeadlineExceeded
          ? "the organization's database did not answer in time"
          : "the service before the organization's database does not answer",
        'SERVICE_UNAVAILABLE',
      );
  }
}

const without = (availability: TenantAvailability, detail: string, reason = ''): TenantJob =>
  create(TenantJobSchema, { availability, detail, reason });
