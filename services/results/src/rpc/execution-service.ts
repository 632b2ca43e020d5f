import { create } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import { DAY_MS, SECOND_MS, uuidTime } from '@mad/process';
import {
  FailedColumnsSchema,
  PoseColumnsSchema,
  ScoredColumnsSchema,
  type ExecutionService,
  type MaterializeJobRequest,
} from '@mad/proto/results';
import { callerOf, callOptions, invalid } from '@mad/rpc';
import type { Context } from '../context.ts';
import { append, type Appended } from '../runs/append.ts';
import { cancel } from '../runs/cancel.ts';
import { fail, finish } from '../runs/finish.ts';
import { readInputs } from '../runs/inputs.ts';
import {
  aliveExecutions,
  demandOf,
  policyOf,
  progressOf,
  readJob,
  type JobImage,
  type Runnable,
} from '../runs/job-image.ts';
import { checkLease } from '../runs/lease.ts';
import { materialize } from '../runs/materialize.ts';
import { ensurePartitions, monthOf, transactOnJob } from '../runs/partitions.ts';
import { checkPlans, runParameters } from '../runs/plan.ts';
import { reconcile } from '../runs/reconcile.ts';
import { settle } from '../runs/settle.ts';
import { storeStructures } from '../runs/pose-structures.ts';
import { start } from '../runs/start.ts';
import type { NewJob } from '../runs/task-filling.ts';
import { jsonText, withoutNul } from '../runs/text.ts';
import { withPriors } from './prior-replicas.ts';

/** A materialization may write millions of rows: it waits longer for its connection than a read. */
const MATERIALIZE_WAIT_MS = 15 * SECOND_MS;
/** Clocks of two machines differ; a job is never from tomorrow. */
const MAX_AHEAD_MS = DAY_MS;

/** What a batch leaves out. */
const NO_SCORED = create(ScoredColumnsSchema);
const NO_FAILED = create(FailedColumnsSchema);
const NO_POSES = create(PoseColumnsSchema);

/** The payload side of a job: made by catalog's word, run by workers. */
export function executionService(context: Context): ServiceImpl<typeof ExecutionService> {
  const { tenants, catalog, verifyLease, feed, logger, cacheTtlDays, sweeper, waker } = context;
  const answer = (job: JobImage, runnable: Runnable[]) => ({ progress: progressOf(job), runnable });

  return {
    async materializeJob(request, ctx) {
      const { orgId, jobId, tasks, inputCount: count } = request;
      const month = monthOfNew(request);
      checkPlans(tasks);
      const known = await tenants.transact(orgId, async (tx) => {
        const job = await readJob(tx, jobId);
        return job && answer(job, await aliveExecutions(tx, job));
      });
      if (known !== undefined) return known;
      // All of the input before the transaction: none is held open across a call to another service.
      const inputs = await readInputs(catalog.jobs, { orgId, jobId, count }, callOptions(ctx));
      await ensurePartitions(tenants, orgId, month);
      const made = await transactOnJob(
        tenants,
        orgId,
        async (tx) => {
          const job = await materialize(tx, newJobOf(request), inputs);
          return answer(job, await aliveExecutions(tx, job));
        },
        { signal: ctx.signal, deadlineMs: MATERIALIZE_WAIT_MS },
      );
      feed.moved(orgId, jobId);
      sweeper.soon(orgId);
      return made;
    },

    async startExecution(request, ctx) {
      const { orgId, taskExecutionId, attempt, worker } = request;
      await checkLease(verifyLease, request);
      const started = await transactOnJob(tenants, orgId, (tx) =>
        start(tx, taskExecutionId, attempt, withoutNul(worker)),
      );
      const { job } = started;
      // The attempt before it may have left structures.
      if (attempt > 1) sweeper.soon(orgId);
      if (started.ended) {
        feed.moved(orgId, job.row.job_id);
        await settle(context, ctx, { orgId, taskExecutionId, job, runnable: started.runnable });
        return { alreadyFinished: true, jobId: job.row.job_id };
      }
      feed.moved(orgId, job.row.job_id);
      const { plan } = started.task;
      return {
        jobId: job.row.job_id,
        task: plan.task,
        engine: plan.engine,
        parameters: runParameters(plan),
        artifacts: plan.artifacts,
        items: await withPriors(context.objects, orgId, started.items),
        nextBatch: started.nextBatch,
      };
    },

    async appendResults(requests) {
      let appended: Appended = { received: 0, nextBatch: 1 };
      for await (const request of requests) {
        const { orgId, taskExecutionId: id, attempt, batch } = request;
        const { scored = NO_SCORED, failed = NO_FAILED, poses = NO_POSES } = request;
        if (batch < 1) throw invalid('batch', 'must be at least 1');
        await checkLease(verifyLease, request);
        // One transaction per batch: an engine may take hours between two. The next message is read when this one is
        // kept, so what waits here is one message; a caller who is gone meanwhile finds it kept.
        const structures = await storeStructures(context, { orgId, id, attempt, batch, poses });
        try {
          appended = await transactOnJob(tenants, orgId, (tx) =>
            append(tx, { id, attempt, batch, scored, failed, poses, structures }),
          );
        } catch (error) {
          if (structures !== undefined) await sweeper.giveUp(orgId, structures.object);
          throw error;
        }
      }
      return appended;
    },

    async finishExecution(request, ctx) {
      const { orgId, taskExecutionId, attempt, errorClass, errorMessage, metrics = {} } = request;
      await checkLease(verifyLease, request);
      if (jsonText(metrics) === undefined) throw invalid('metrics', 'must not hold NUL characters');
      const error =
        errorClass === '' ? undefined : { errorClass: withoutNul(errorClass), errorMessage: withoutNul(errorMessage) };
      const ended = await transactOnJob(tenants, orgId, (tx) =>
        finish(tx, { id: taskExecutionId, attempt, error, metrics, cacheTtlDays }),
      );
      const { job_id: jobId } = ended.job.row;
      feed.moved(orgId, jobId);
      waker.ended({ orgId, jobId, executionId: taskExecutionId });
      await settle(context, ctx, { orgId, taskExecutionId, ...ended });
      return { progress: progressOf(ended.job) };
    },

    async failExecution({ orgId, taskExecutionId, attempt, errorClass, errorMessage }) {
      const error = { errorClass: withoutNul(errorClass), errorMessage: withoutNul(errorMessage) };
      const { job, runnable } = await transactOnJob(tenants, orgId, (tx) =>
        fail(tx, { id: taskExecutionId, attempt, error }),
      );
      feed.moved(orgId, job.row.job_id);
      waker.ended({ orgId, jobId: job.row.job_id, executionId: taskExecutionId });
      sweeper.soon(orgId);
      return answer(job, runnable);
    },

    async cancelJobRun({ orgId, jobId }, ctx) {
      const caller = callerOf(ctx);
      const userId = (caller.kind === 'service' ? caller.userId : undefined) ?? '';
      const job = await transactOnJob(tenants, orgId, (tx) => cancel(tx, jobId, userId));
      feed.moved(orgId, jobId);
      waker.ended({ orgId, jobId });
      sweeper.soon(orgId);
      return { progress: progressOf(job) };
    },

    async reconcileJob({ orgId, jobId }) {
      await waker.look(orgId, jobId);
      const found = await tenants.transact(orgId, (tx) => reconcile(tx, jobId));
      if (found === undefined) return { materialized: false };
      const { job, counters, runnable, drifted } = found;
      if (drifted.length > 0) logger.error({ org_id: orgId, job_id: jobId, drifted }, 'counters differ from the rows');
      return { materialized: true, progress: progressOf(job, counters), runnable };
    },
  };
}

function newJobOf(request: MaterializeJobRequest): NewJob {
  const { jobId, pipelineId, pipelineVersionId, tasks, parameters = {}, cachePolicy, createdBy } = request;
  return {
    jobId,
    pipelineId: pipelineId || undefined,
    pipelineVersionId,
    plans: tasks,
    parameters,
    policy: policyOf(cachePolicy),
    demand: demandOf(request),
    createdBy,
  };
}

/** The month whose partitions hold the job. INVALID_ARGUMENT when its id does not say, or says one of the future. */
function monthOfNew({ jobId }: MaterializeJobRequest): string {
  let made: Date;
  try {
    made = uuidTime(jobId);
  } catch {
    throw invalid('job_id', 'must be a UUIDv7: it says which partitions hold the job');
  }
  if (made.getTime() > Date.now() + MAX_AHEAD_MS)
    throw invalid('job_id', `was made in the future: ${made.toISOString()}`);
  return monthOf(jobId);
}
