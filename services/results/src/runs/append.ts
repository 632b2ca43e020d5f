import { Code, ConnectError } from '@connectrpc/connect';
import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { TaskPlanSchema, type TaskPlan } from '@mad/proto/results';
import { invalid, rpcError } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import { problemOfContent } from '../domain/content.ts';
import { decideBatch, mayReport } from '../domain/execution.ts';
import { confidenceOf, type Problem } from '../domain/outcome.ts';
import { problemOf, type ResultBatch, type Scored } from '../domain/result-batch.ts';
import { copyRows, uuidBytes, type CopyTarget, type CopyValue } from './copy.ts';
import { lockExecution, type Execution } from './execution.ts';
import { leaseLost } from './lease.ts';
import { planned } from './planned.ts';
import { keepStructures, type StoredStructures } from './pose-structures.ts';
import { storableObject, withoutNul } from './text.ts';

const STAGED: CopyTarget = {
  table: 'staged_results',
  columns: {
    task_execution_id: 'uuid',
    item_no: 'int4',
    status: 'text',
    score: 'float8',
    result_data: 'jsonb',
    confidence_score: 'float8',
    error_class: 'text',
    error_message: 'text',
  },
};

const POSES: CopyTarget = {
  table: 'docking_results',
  columns: {
    job_id: 'uuid',
    task_id: 'text',
    item_no: 'int4',
    replicate: 'int4',
    pose_rank: 'int4',
    molecule_id: 'uuid',
    score: 'float8',
    raw_score: 'float8',
    rmsd_lb: 'float8',
    rmsd_ub: 'float8',
    task_execution_id: 'uuid',
    chunk_no: 'int4',
    pose_object: 'uuid',
    pose_offset: 'int4',
    pose_length: 'int4',
  },
};

/** A batch of an attempt. */
export interface NumberedBatch extends ResultBatch {
  id: string;
  attempt: number;
  batch: number;
  /** Where its structures were put; undefined when it has none. */
  structures?: StoredStructures | undefined;
}

/** How an attempt's results stand. */
export interface Appended {
  /** Items it has an outcome for. */
  received: number;
  nextBatch: number;
}

/**
 * Stages a batch of the attempt that runs: nothing shows it before the execution finishes. A batch taken before changes
 * nothing; one that leaves a gap is FAILED_PRECONDITION with reason BATCH_GAP and the number expected. INVALID_ARGUMENT
 * naming batch, row and column when something is wrong with it; nothing of it is kept then.
 */
export async function append(tx: TenantTx, said: NumberedBatch): Promise<Appended> {
  const { id, attempt, batch } = said;
  const execution = await lockExecution(tx, id);
  if (!mayReport(execution, attempt)) throw leaseLost(id, attempt, execution);
  const decision = decideBatch(execution.batches, batch);
  if (decision === 'gap') throw gap(said, execution.batches + 1);
  if (decision === 'take') await take(tx, execution, said);
  const batches = Math.max(execution.batches, batch);
  const [kept] = await tx.query<{ received: number }>(
    `UPDATE task_executions SET batches = $2 WHERE task_execution_id = $1
      RETURNING (SELECT count(*)::int FROM staged_results WHERE task_execution_id = $1) AS received`,
    [id, batches],
  );
  return { received: kept!.received, nextBatch: batches + 1 };
}

async function take(tx: TenantTx, execution: Execution, said: NumberedBatch): Promise<void> {
  const { batch, scored, poses } = said;
  const plan = await planOf(tx, execution);
  const problem = problemOf(said, plan.scoreUnits);
  if (problem !== undefined) throw refused(batch, problem);
  const data = resultData(batch, scored);
  const molecules = await openItems(tx, execution, said);
  await copyRows(tx, STAGED, stagedRows(plan, said, data));
  if (said.structures !== undefined && !(await keepStructures(tx, said.structures))) {
    throw new ConnectError('the structures of the batch were given up: send it again', Code.Unavailable);
  }
  if (poses.itemNo.length > 0) await copyRows(tx, POSES, poseRows(execution, said, molecules));
}

function gap({ id, batch }: NumberedBatch, expected: number): ConnectError {
  const metadata = { task_execution_id: id, next_batch: String(expected) };
  const message = `batch ${batch} leaves a gap: batch ${expected} is the next`;
  return rpcError(Code.FailedPrecondition, 'BATCH_GAP', message, metadata);
}

/** INVALID_ARGUMENT in words like "batch 3, row 17: poses.score: must be finite". Rows count from 1. */
function refused(batch: number, { column, row, description }: Problem): ConnectError {
  const where = row === undefined ? `batch ${batch}` : `batch ${batch}, row ${row + 1}`;
  return invalid(`${where}: ${column}`, description);
}

async function planOf(tx: TenantTx, { jobId, taskId }: Execution): Promise<TaskPlan> {
  const [row] = await tx.query<{ plan: JsonValue }>('SELECT plan FROM job_tasks WHERE job_id = $1 AND task_id = $2', [
    jobId,
    taskId,
  ]);
  return fromJson(TaskPlanSchema, row!.plan);
}

/** What the engine said of each item as text that jsonb can keep; null where it said nothing. */
function resultData(batch: number, { resultData: texts }: Scored): (string | null)[] {
  return texts.map((text, row) => {
    if (text === '') return null;
    const storable = storableObject(text);
    if (storable === undefined) {
      const description = 'must be a JSON object without NUL characters and lone surrogates';
      throw refused(batch, { column: 'scored.result_data', row, description });
    }
    const problem = problemOfContent(storable.value);
    if (problem !== undefined) throw refused(batch, { column: 'scored.result_data', row, description: problem });
    return storable.text;
  });
}

/**
 * The molecules of the batch's items, by item: each must be the execution's, and none may have an outcome already (another
 * batch's: which of the two were true?).
 *
 * Two statements of one table each, not a join: Postgres believes an execution it has never seen to have one row, and
 * where it has statistics of others it joins each row with each.
 */
async function openItems(
  tx: TenantTx,
  { id, jobId, taskId }: Execution,
  { batch, scored, failed }: NumberedBatch,
): Promise<Map<number, Uint8Array>> {
  const items = [...scored.itemNo, ...failed.itemNo];
  const rows = await planned<{ item_no: number; molecule_id: string }>(
    tx,
    `SELECT item_no, molecule_id FROM task_results
      WHERE job_id = $1 AND task_id = $2 AND item_no = ANY ($3::int[]) AND task_execution_id = $4 AND status = 'pending'`,
    [jobId, taskId, items, id],
  );
  const staged = await planned<{ item_no: number }>(
    tx,
    'SELECT item_no FROM staged_results WHERE task_execution_id = $1 AND item_no = ANY ($2::int[])',
    [id, items],
  );
  const molecules = new Map(rows.map((row) => [row.item_no, uuidBytes(row.molecule_id)]));
  const known = new Set(staged.map((row) => row.item_no));
  for (const [section, { itemNo }] of Object.entries({ scored, failed })) {
    const column = `${section}.item_no`;
    itemNo.forEach((one, row) => {
      if (!molecules.has(one)) throw refused(batch, { column, row, description: `${one} is not this execution's` });
      if (known.has(one)) {
        throw refused(batch, { column, row, description: `${one} has its outcome from an earlier batch` });
      }
    });
  }
  return molecules;
}

function* stagedRows(
  { deterministic }: TaskPlan,
  { id, scored, failed, poses }: NumberedBatch,
  data: readonly (string | null)[],
): Generator<CopyValue[]> {
  const execution = uuidBytes(id);
  const posed = new Set(poses.itemNo);
  for (const [row, itemNo] of scored.itemNo.entries()) {
    const reported = scored.confidenceScore[row] ?? -1;
    const confidence = confidenceOf(reported === -1 ? undefined : reported, deterministic, posed.has(itemNo));
    yield [execution, itemNo, 'scored', scored.score[row] ?? null, data[row] ?? null, confidence, '', ''];
  }
  for (const [row, itemNo] of failed.itemNo.entries()) {
    const [kind, message] = [withoutNul(failed.errorClass[row]!), withoutNul(failed.errorMessage[row]!)];
    yield [execution, itemNo, 'failed', null, null, null, kind, message];
  }
}

function* poseRows(
  { id, jobId, taskId, chunkNo }: Execution,
  { poses, structures }: NumberedBatch,
  molecules: ReadonlyMap<number, Uint8Array>,
): Generator<CopyValue[]> {
  const { itemNo, replicate, poseRank, score, rawScore, rmsdLb, rmsdUb } = poses;
  const [job, execution] = [uuidBytes(jobId), uuidBytes(id)];
  // One array for all rows: tens of thousands of them a batch.
  const row: CopyValue[] = [job, taskId, 0, 0, 0, null, 0, 0, 0, 0, execution, chunkNo, null, null, null];
  const object = structures && uuidBytes(structures.object.objectId);
  for (let index = 0; index < itemNo.length; index += 1) {
    row[2] = itemNo[index]!;
    row[3] = replicate[index]!;
    row[4] = poseRank[index]!;
    row[5] = molecules.get(itemNo[index]!)!;
    row[6] = score[index]!;
    row[7] = rawScore[index]!;
    row[8] = rmsdLb[index]!;
    row[9] = rmsdUb[index]!;
    const length = structures?.length[index] ?? 0;
    row[12] = length === 0 ? null : object!;
    row[13] = length === 0 ? null : structures!.offset[index]!;
    row[14] = length === 0 ? null : length;
    yield row;
  }
}
