import { timestampFromDate, type Timestamp } from '@bufbuild/protobuf/wkt';
import type { JsonObject, MessageInitShape } from '@bufbuild/protobuf';
import { WorkStatus as WorkStatusMessage } from '@mad/proto/results';
import type {
  JobEventSchema,
  JobRunSchema,
  MoleculePropertiesSchema,
  PoseSchema,
  WorkItemSchema,
} from '@mad/proto/results';
import type { JobEventRow } from '../db/entities/job.ts';
import type { DockingResultRow, TaskResultRow } from '../db/entities/work.ts';
import { structBytes, textBytes } from '../domain/content.ts';
import type { WorkStatus } from '../domain/work-item.ts';
import { countersMessage, policyMessage, stateMessage, type JobImage, type JobTask } from '../runs/job-image.ts';

const STATUSES: Record<WorkStatus, WorkStatusMessage> = {
  pending: WorkStatusMessage.PENDING,
  cached: WorkStatusMessage.CACHED,
  scored: WorkStatusMessage.SCORED,
  failed: WorkStatusMessage.FAILED,
  skipped: WorkStatusMessage.SKIPPED,
  cancelled: WorkStatusMessage.CANCELLED,
};

/** The domain's word for a status asked for; undefined for unspecified. */
export function statusOf(message: WorkStatusMessage): WorkStatus | undefined {
  return (Object.keys(STATUSES) as WorkStatus[]).find((status) => STATUSES[status] === message);
}

export function jobRunMessage(job: JobImage): MessageInitShape<typeof JobRunSchema> {
  const { row, tasks } = job;
  return {
    jobId: row.job_id,
    pipelineVersionId: row.pipeline_version_id,
    state: stateMessage(row.status),
    counters: countersMessage(countersIn(row)),
    inputSignature: row.input_signature,
    parameters: row.params as JsonObject,
    cachePolicy: policyMessage(row.cache_policy),
    eventSeq: BigInt(row.event_seq),
    tasks: tasks.map(({ taskId, plan, counters }) => ({
      taskId,
      task: plan.task,
      engine: plan.engine,
      counters: countersMessage(counters),
      scoreUnits: plan.scoreUnits,
      lowerIsBetter: plan.lowerIsBetter,
    })),
    createTime: timestampFromDate(row.created_at),
    startTime: row.started_at === null ? undefined : timestampFromDate(row.started_at),
    endTime: row.ended_at === null ? undefined : timestampFromDate(row.ended_at),
    error: row.error,
    resultsDropTime: dropTime(job),
    coreMs: BigInt(row.core_ms),
    savedCoreMs: BigInt(row.saved_core_ms),
  };
}

/** When retention dropped the job's results. */
export function dropTime({ row }: JobImage): Timestamp | undefined {
  return row.results_dropped_at === null ? undefined : timestampFromDate(row.results_dropped_at);
}

/** The counters among a row's columns. */
export function countersIn(row: JobImage['row']): JobTask['counters'] {
  const { requested, cached, scored, failed, skipped, cancelled, pending } = row;
  return { requested, cached, scored, failed, skipped, cancelled, pending };
}

/** What a pose shows. */
export type PoseRow = Pick<
  DockingResultRow,
  | 'replicate'
  | 'pose_rank'
  | 'score'
  | 'raw_score'
  | 'rmsd_lb'
  | 'rmsd_ub'
  | 'pose_object'
  | 'pose_offset'
  | 'pose_length'
> & {
  /** Whose the pose is: the job that computed it. */
  job_id: string;
};

/** The columns of a PoseRow, of a pose `d`. */
export const POSE_COLUMNS = `d.job_id, d.replicate, d.pose_rank, d.score, d.raw_score, d.rmsd_lb, d.rmsd_ub, d.pose_object,
  d.pose_offset, d.pose_length`;

/** What a work item shows. */
export type ItemRow = Pick<
  TaskResultRow,
  | 'task_id'
  | 'item_no'
  | 'molecule_id'
  | 'smiles'
  | 'status'
  | 'input_signature'
  | 'score'
  | 'result_data'
  | 'confidence_score'
  | 'reused_from_job_id'
  | 'reused_from_task_id'
  | 'reused_from_item_no'
  | 'extends_job_id'
  | 'extends_item_no'
  | 'error_class'
  | 'error_message'
  | 'molecular_weight'
  | 'logp'
  | 'tpsa'
  | 'hbd'
  | 'hba'
  | 'rotatable_bonds'
  | 'molecule_name'
>;

/** The columns of an ItemRow. */
export const ITEM_COLUMNS = `task_id, item_no, molecule_id, smiles, status, input_signature, score, result_data,
  confidence_score, reused_from_job_id, reused_from_task_id, reused_from_item_no, extends_job_id, extends_item_no, error_class,
  error_message, molecular_weight, logp, tpsa, hbd, hba, rotatable_bonds, molecule_name`;

/** What is in a message beside texts and JSON, at most: numbers, ids, tags and lengths. */
export const FIXED_BYTES = 600;

/** Bytes of an item in an answer, its best pose included; a little more than it takes. */
export function itemBytes(row: ItemRow): number {
  const { smiles, molecule_name: name, error_class: kind, error_message: message, result_data: data } = row;
  return FIXED_BYTES + textBytes(smiles, name, kind, message) + (data === null ? 0 : structBytes(data));
}

/** Bytes of an event in an answer; a little more than it takes. */
export function eventBytes({ event, detail, metadata }: JobEventRow): number {
  return FIXED_BYTES + textBytes(event, detail) + structBytes(metadata);
}

/** What a work item shows besides its row; `rank` and `bestPose` in hits only. */
export interface Shown {
  scoreUnits: string;
  invalidated: boolean;
  rank?: number;
  bestPose?: PoseRow | undefined;
}

export function workItemMessage(
  row: ItemRow,
  { scoreUnits, invalidated, rank = 0, bestPose }: Shown,
): MessageInitShape<typeof WorkItemSchema> {
  return {
    taskId: row.task_id,
    itemNo: row.item_no,
    moleculeId: row.molecule_id,
    smiles: row.smiles,
    status: STATUSES[row.status],
    inputSignature: row.input_signature,
    score: row.score ?? undefined,
    scoreUnits: row.score === null ? '' : scoreUnits,
    resultData: (row.result_data as JsonObject | null) ?? undefined,
    confidenceScore: row.confidence_score ?? undefined,
    reusedFromJobId: row.reused_from_job_id ?? '',
    reusedFromItemNo: row.reused_from_item_no ?? 0,
    extendedFromJobId: row.extends_job_id ?? '',
    extendedFromItemNo: row.extends_item_no ?? 0,
    errorClass: row.error_class,
    errorMessage: row.error_message,
    rank,
    properties: propertiesOf(row),
    resultInvalidated: invalidated,
    moleculeName: row.molecule_name,
    bestPose: bestPose === undefined ? undefined : poseMessage(bestPose),
  };
}

function propertiesOf(row: ItemRow): MessageInitShape<typeof MoleculePropertiesSchema> | undefined {
  if (row.molecular_weight === null) return undefined;
  return {
    molecularWeight: row.molecular_weight,
    logp: row.logp!,
    tpsa: row.tpsa!,
    hbd: row.hbd!,
    hba: row.hba!,
    rotatableBonds: row.rotatable_bonds!,
  };
}

export function poseMessage(row: PoseRow): MessageInitShape<typeof PoseSchema> {
  return {
    replicate: row.replicate,
    poseRank: row.pose_rank,
    score: row.score,
    rawScore: row.raw_score,
    rmsdLb: row.rmsd_lb,
    rmsdUb: row.rmsd_ub,
    hasStructure: row.pose_object !== null,
  };
}

export function eventMessage({
  seq_no,
  ts,
  event,
  detail,
  metadata,
}: JobEventRow): MessageInitShape<typeof JobEventSchema> {
  return { seqNo: BigInt(seq_no), time: timestampFromDate(ts), event, detail, metadata: metadata as JsonObject };
}
