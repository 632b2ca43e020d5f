import type { JsonObject } from '@bufbuild/protobuf';
import type { TenantTx } from '@mad/tenancy';
import { decideStart } from '../domain/execution.ts';
import type { StructurePlace } from '../objects/structures.ts';
import { jobStateWhenBegun } from '../domain/job-state.ts';
import { coalesce, setAside } from './coalesce.ts';
import { dropStaged } from './endings.ts';
import { endExecution } from './finish.ts';
import { leaseLost } from './lease.ts';
import { lockExecutionAndJob, type Execution } from './execution.ts';
import { aliveExecutions, taskIn, type JobImage, type JobTask, type Runnable } from './job-image.ts';
import { holdOffRetention } from './retention-lock.ts';
import { saveJob } from './save-job.ts';

/** A molecule to run. */
export interface ItemToRun {
  itemNo: number;
  moleculeId: string;
  smiles: string;
  /** Its first replicas, where they are known. */
  prior?: Prior | undefined;
}

/** What an engine said of an item with fewer replicas. */
export interface Prior {
  resultData: JsonObject;
  poses: PriorPose[];
}

/** A pose of its, and where the structure is. */
export interface PriorPose {
  replicate: number;
  poseRank: number;
  score: number;
  rawScore: number;
  rmsdLb: number;
  rmsdUb: number;
  place: StructurePlace;
}

/** Items whose first replicas are read for one answer; it has no room for more. */
const MOST_PRIORS = 1_000;

/** What a worker gets: work, or, when it has ended, what catalog must be told again. */
export type Started =
  | { ended: false; job: JobImage; task: JobTask; items: ItemToRun[]; nextBatch: number }
  | { ended: true; job: JobImage; runnable: Runnable[] };

/** Lets an attempt begin. See `decideStart` for who may, and `coalesce` for what is left of it. */
export async function start(tx: TenantTx, id: string, attempt: number, worker: string): Promise<Started> {
  await holdOffRetention(tx);
  const { job, execution } = await lockExecutionAndJob(tx, id);
  const decision = decideStart(execution, attempt);
  if (decision === 'lease_lost') throw leaseLost(id, attempt, execution);
  if (decision === 'already_finished') return { ended: true, job, runnable: await aliveExecutions(tx, job) };
  if (decision === 'begin_again') await dropStaged(tx, execution);
  if (decision !== 'repeat') {
    const items = await coalesce(tx, job, taskIn(job, execution.taskId), execution);
    if (items !== undefined && items.awaited.length > 0) await setAside(tx, job, execution, items.awaited);
    if (items?.free.length === 0) {
      const ended = { status: 'finished', attempt, error: undefined, metrics: {}, ran: false } as const;
      return { ended: true, ...(await endExecution(tx, job, execution, ended)) };
    }
    await begin(tx, job, execution, attempt, worker);
  }
  const items = await tx.query<{ item_no: number; molecule_id: string; smiles: string }>(
    `SELECT item_no, molecule_id, smiles FROM task_results WHERE task_execution_id = $1 AND status = 'pending' ORDER BY item_no`,
    [id],
  );
  const priors = await readPriors(tx, id);
  return {
    ended: false,
    job,
    task: taskIn(job, execution.taskId),
    nextBatch: decision === 'repeat' ? execution.batches + 1 : 1,
    items: items.map(({ item_no: itemNo, molecule_id: moleculeId, smiles }) => ({
      itemNo,
      moleculeId,
      smiles,
      prior: priors.get(itemNo),
    })),
  };
}

/** What is known of the execution's first items. A source that has lost something since is none. */
async function readPriors(tx: TenantTx, id: string): Promise<Map<number, Prior>> {
  const rows = await tx.query<{ item_no: number; result_data: JsonObject; poses: Prior['poses'] | null }>(
    `SELECT t.item_no, s.result_data, (
        SELECT jsonb_agg(jsonb_build_object('replicate', d.replicate, 'poseRank', d.pose_rank, 'score', d.score,
          'rawScore', d.raw_score, 'rmsdLb', d.rmsd_lb, 'rmsdUb', d.rmsd_ub, 'place', jsonb_build_object('job_id', d.job_id,
            'pose_object', d.pose_object, 'pose_offset', d.pose_offset, 'pose_length', d.pose_length)) ORDER BY d.replicate, d.pose_rank)
        FROM docking_results d WHERE d.job_id = s.job_id AND d.task_id = s.task_id AND d.item_no = s.item_no) AS poses
      FROM task_results t JOIN task_results s
        ON s.job_id = t.extends_job_id AND s.task_id = t.extends_task_id AND s.item_no = t.extends_item_no
      WHERE t.task_execution_id = $1 AND t.status = 'pending' AND s.status = 'scored' AND s.result_data IS NOT NULL
      ORDER BY t.item_no LIMIT $2`,
    [id, MOST_PRIORS],
  );
  return new Map(rows.map((row) => [row.item_no, { resultData: row.result_data, poses: row.poses ?? [] }]));
}

async function begin(
  tx: TenantTx,
  job: JobImage,
  execution: Execution,
  attempt: number,
  worker: string,
): Promise<void> {
  const { id, taskId, chunkNo } = execution;
  await tx.execute(
    `UPDATE task_executions SET status = 'running', attempt = $2, worker = $3, started_at = now(), batches = 0,
        retries = retries + CASE WHEN attempt > 0 THEN 1 ELSE 0 END
      WHERE task_execution_id = $1`,
    [id, attempt, worker],
  );
  const state = jobStateWhenBegun(job.row.status);
  if (state !== job.row.status) {
    job.row.status = state;
    job.events.push({ event: `job.${state}`, detail: '' });
  }
  job.events.push({
    event: 'execution.started',
    detail: worker,
    metadata: { task_execution_id: id, task_id: taskId, chunk_no: chunkNo, attempt },
  });
  await saveJob(tx, job);
}
