import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { TaskPlanSchema, type ItemOutcome, type TaskPlan } from '@mad/proto/results';
import { invalid } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import { mayReport } from '../domain/execution.ts';
import { confidenceOf, problemOf } from '../domain/outcome.ts';
import { copyRows, type CopyValue } from './copy.ts';
import { lockExecution, type Execution } from './execution.ts';
import { leaseLost } from './lease.ts';
import { jsonText, withoutNul } from './text.ts';

const STAGED_COLUMNS = `staged_results (task_execution_id, item_no, status, score, result_data, confidence_score, error_class,
  error_message)`;
const POSE_COLUMNS = `docking_results (job_id, task_id, item_no, replicate, pose_rank, molecule_id, score, raw_score, rmsd_lb,
  rmsd_ub, task_execution_id, chunk_no)`;

interface OpenItem {
  item_no: number;
  molecule_id: string;
  staged: boolean;
}

/**
 * Stages outcomes of an attempt that runs: nothing shows them before it finishes. An item said again replaces itself;
 * within one message the last word counts. INVALID_ARGUMENT naming the row when an outcome is wrong or not this
 * execution's. Returns how many items the execution has an outcome for.
 */
export async function append(
  tx: TenantTx,
  id: string,
  attempt: number,
  outcomes: readonly ItemOutcome[],
): Promise<number> {
  const execution = await lockExecution(tx, id);
  if (!mayReport(execution, attempt)) throw leaseLost(id, attempt, execution);
  const plan = await planOf(tx, execution);
  outcomes.forEach((outcome, index) => {
    const problem = problemOf(outcome, plan.scoreUnits);
    if (problem !== undefined) throw invalid(`outcomes[${index}].${problem.field}`, problem.description);
  });
  const data = outcomes.map((outcome, index) => resultData(outcome, index));
  const open = await openItems(tx, execution, outcomes);
  const last = new Map(outcomes.map((outcome, index) => [outcome.itemNo, { outcome, data: data[index]! }]));
  const again = [...last.keys()].filter((itemNo) => open.get(itemNo)!.staged);
  if (again.length > 0) await forget(tx, execution, again);
  await copyRows(
    tx,
    STAGED_COLUMNS,
    [...last.values()].map((said) => stagedRow(id, plan.deterministic, said)),
  );
  const said = [...last.values()].map(({ outcome }) => outcome);
  if (said.some(({ poses }) => poses.length > 0)) await copyRows(tx, POSE_COLUMNS, poseRows(execution, said, open));
  const [count] = await tx.query<{ staged: number }>(
    'SELECT count(*)::int AS staged FROM staged_results WHERE task_execution_id = $1',
    [id],
  );
  return count!.staged;
}

async function planOf(tx: TenantTx, { jobId, taskId }: Execution): Promise<TaskPlan> {
  const [row] = await tx.query<{ plan: JsonValue }>('SELECT plan FROM job_tasks WHERE job_id = $1 AND task_id = $2', [
    jobId,
    taskId,
  ]);
  return fromJson(TaskPlanSchema, row!.plan);
}

/** The outcome's data as JSON text, null when there is none. */
function resultData({ resultData: data }: ItemOutcome, index: number): string | null {
  if (data === undefined) return null;
  const text = jsonText(data);
  if (text === undefined) throw invalid(`outcomes[${index}].result_data`, 'must not hold NUL characters');
  return text;
}

/** The execution's items among the outcomes; refuses an outcome of any other item. */
async function openItems(
  tx: TenantTx,
  { id, jobId, taskId }: Execution,
  outcomes: readonly ItemOutcome[],
): Promise<Map<number, OpenItem>> {
  const rows = await tx.query<OpenItem>(
    `SELECT t.item_no, t.molecule_id, s.item_no IS NOT NULL AS staged
      FROM task_results t
        LEFT JOIN staged_results s ON s.task_execution_id = t.task_execution_id AND s.item_no = t.item_no
      WHERE t.job_id = $1 AND t.task_id = $2 AND t.item_no = ANY ($3::int[]) AND t.task_execution_id = $4
        AND t.status = 'pending'`,
    [jobId, taskId, outcomes.map(({ itemNo }) => itemNo), id],
  );
  const open = new Map(rows.map((row) => [row.item_no, row]));
  const stranger = outcomes.findIndex(({ itemNo }) => !open.has(itemNo));
  if (stranger >= 0) {
    const description = `${outcomes[stranger]!.itemNo} is not an item of this execution`;
    throw invalid(`outcomes[${stranger}].item_no`, description);
  }
  return open;
}

/** Takes back what the execution said of some items. */
async function forget(tx: TenantTx, { id, jobId, taskId }: Execution, itemNos: number[]): Promise<void> {
  await tx.execute('DELETE FROM staged_results WHERE task_execution_id = $1 AND item_no = ANY ($2::int[])', [
    id,
    itemNos,
  ]);
  await tx.execute('DELETE FROM docking_results WHERE job_id = $1 AND task_id = $2 AND item_no = ANY ($3::int[])', [
    jobId,
    taskId,
    itemNos,
  ]);
}

function stagedRow(
  id: string,
  deterministic: boolean,
  { outcome, data }: { outcome: ItemOutcome; data: string | null },
): CopyValue[] {
  const { itemNo, score = null, confidenceScore, poses, errorClass, errorMessage } = outcome;
  const failed = errorClass !== '';
  const confidence = failed ? null : confidenceOf(confidenceScore, deterministic, poses.length);
  const status = failed ? 'failed' : 'scored';
  return [id, itemNo, status, score, data, confidence, withoutNul(errorClass), withoutNul(errorMessage)];
}

function* poseRows(
  { id, jobId, taskId, chunkNo }: Execution,
  outcomes: readonly ItemOutcome[],
  open: ReadonlyMap<number, OpenItem>,
): Generator<CopyValue[]> {
  for (const { itemNo, poses } of outcomes) {
    const { molecule_id: moleculeId } = open.get(itemNo)!;
    for (const { replicate, poseRank, score, rawScore, rmsdLb, rmsdUb } of poses) {
      yield [jobId, taskId, itemNo, replicate, poseRank, moleculeId, score, rawScore, rmsdLb, rmsdUb, id, chunkNo];
    }
  }
}
