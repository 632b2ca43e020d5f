import { createHash } from 'node:crypto';
import type { TaskPlan } from '@mad/proto/results';
import type { TenantTx } from '@mad/tenancy';
import { scaleOf } from '../domain/score-units.ts';
import type { WorkStatus } from '../domain/work-item.ts';
import { appendAudit } from './audit.ts';
import { countHits, savedCoreMs } from './cache.ts';
import type { Inputs } from './inputs.ts';
import { countersOf, lockJob, taskIn, type JobImage } from './job-image.ts';
import { planJson } from './plan.ts';
import { holdOffRetention } from './retention-lock.ts';
import { closeJob, saveJob } from './save-job.ts';
import { countMaterialized } from './statistics.ts';
import { TaskFilling, type NewJob } from './task-filling.ts';

/**
 * Makes a job with its tasks, items and executions; answers from the cache what can be. A job that exists is left as it
 * is, also when two come at the same time: the second waits for the first. Returns the job, locked.
 */
export async function materialize(tx: TenantTx, job: NewJob, inputs: Inputs): Promise<JobImage> {
  // Before anything is looked up: what answers an item must be there when it is committed.
  await holdOffRetention(tx);
  if (await insertJob(tx, job, inputs.smiles.length)) {
    const image = (await lockJob(tx, job.jobId))!;
    await fill(tx, job, inputs, image);
    return image;
  }
  return (await lockJob(tx, job.jobId))!;
}

/** False when the job is here already. */
async function insertJob(tx: TenantTx, job: NewJob, items: number): Promise<boolean> {
  const { jobId, pipelineId, pipelineVersionId, plans, parameters, policy, demand, createdBy } = job;
  // The signature is known when the last item has been seen; until then it names nothing.
  const inserted = await tx.execute(
    `INSERT INTO jobs (job_id, pipeline_version_id, input_signature, params, cache_policy, min_confidence,
        max_age_s, created_by, requested, pending, pipeline_id)
      VALUES ($1, $2, repeat('0', 64), $3, $4, $5, $6, $7, $8, $8, $9) ON CONFLICT (job_id) DO NOTHING`,
    [
      jobId,
      pipelineVersionId,
      JSON.stringify(parameters),
      policy,
      demand.minConfidence,
      demand.maxAgeS,
      createdBy,
      items * plans.length,
      pipelineId ?? null,
    ],
  );
  if (inserted === 0) return false;
  await tx.execute(
    `INSERT INTO job_tasks (job_id, task_id, position, plan, bin_width, requested, pending)
      SELECT $1, task_id, position, plan, bin_width, $5, $5
      FROM unnest($2::text[], $3::jsonb[], $4::float8[]) WITH ORDINALITY AS n (task_id, plan, bin_width, position)`,
    [jobId, plans.map(({ taskId }) => taskId), plans.map(planJson), plans.map(binWidthOf), items],
  );
  const artifacts = plans.flatMap(({ taskId, artifacts: all }) => all.map((artifact) => ({ taskId, ...artifact })));
  if (artifacts.length > 0) {
    await tx.execute(
      `INSERT INTO job_inputs (job_id, key, uri, checksum)
        SELECT $1, key, uri, checksum FROM unnest($2::text[], $3::text[], $4::text[]) AS n (key, uri, checksum)`,
      [
        jobId,
        artifacts.map(({ taskId, parameter }) => `${taskId}.${parameter}`),
        artifacts.map(({ artifactId }) => `artifact:${artifactId}`),
        artifacts.map(({ sha256 }) => sha256),
      ],
    );
  }
  return true;
}

function binWidthOf({ scoreUnits }: TaskPlan): number | null {
  return scoreUnits === '' ? null : scaleOf(scoreUnits).binWidth;
}

async function fill(tx: TenantTx, job: NewJob, inputs: Inputs, image: JobImage): Promise<void> {
  // The job's signature: the pipeline version, then the items' signatures, task by task in input order.
  const signature = createHash('sha256').update(job.pipelineVersionId);
  const statuses = new Map<string, WorkStatus[]>();
  let toppedUp = 0;
  for (const task of image.tasks) {
    const upstream = task.plan.dependsOn.map((taskId) => statuses.get(taskId)!);
    const waits = task.plan.dependsOn.some((taskId) => taskIn(image, taskId).counters.pending > 0);
    const filling = new TaskFilling(tx, job, task.plan, { inputs, upstream, waits, now: image.row.created_at });
    await filling.run((itemSignature) => signature.update(`\n${itemSignature}`));
    task.counters = filling.counters;
    statuses.set(task.taskId, filling.statuses);
    toppedUp += filling.toppedUp;
  }
  await tx.execute('UPDATE jobs SET input_signature = $2 WHERE job_id = $1', [job.jobId, signature.digest('hex')]);
  const { requested, cached, failed } = countersOf(image);
  if (cached > 0) {
    await countHits(tx, job);
    image.row.saved_core_ms = await savedCoreMs(tx, job);
  }
  if (cached + failed > 0) await countMaterialized(tx, job.jobId);
  image.events.push({
    event: 'job.materialized',
    detail: '',
    metadata: { requested, cached, ...(toppedUp > 0 && { topped_up: toppedUp }) },
  });
  await appendAudit(tx, {
    userId: job.createdBy,
    action: 'job.create',
    jobId: job.jobId,
    outcome: 'ok',
    metadata: {
      pipeline_version_id: job.pipelineVersionId,
      requested,
      cached,
    },
  });
  closeJob(image);
  await saveJob(tx, image);
}
