import { EntitySchema } from '@mad/postgres';
import { CACHE_MISSES, type CacheMiss } from '../../domain/cache-entry.ts';
import { EXECUTION_STATUSES, type ExecutionStatus } from '../../domain/execution.ts';
import { WORK_STATUSES, type WorkStatus } from '../../domain/work-item.ts';

/** A row of results.task_executions. */
export interface TaskExecutionRow {
  task_execution_id: string;
  job_id: string;
  task_id: string;
  chunk_no: number;
  attempt: number;
  status: ExecutionStatus;
  worker: string;
  queued_at: Date | null;
  started_at: Date | null;
  ended_at: Date | null;
  retries: number;
  error_class: string;
  error_message: string;
  logs_uri: string | null;
  metrics: Record<string, unknown>;
  batches: number;
  core_ms: number;
  items: number;
}

export const TaskExecutionEntity = new EntitySchema<TaskExecutionRow>({
  name: 'task_executions',
  schema: 'results',
  columns: {
    task_execution_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'task_executions_pkey',
      default: () => 'gen_random_uuid()',
    },
    job_id: { type: 'uuid' },
    task_id: { type: 'text' },
    chunk_no: { type: 'integer' },
    attempt: { type: 'integer', default: 0 },
    status: { type: 'enum', enum: [...EXECUTION_STATUSES], enumName: 'execution_status', default: 'queued' },
    worker: { type: 'text', default: '' },
    queued_at: { type: 'timestamptz', nullable: true },
    started_at: { type: 'timestamptz', nullable: true },
    ended_at: { type: 'timestamptz', nullable: true },
    retries: { type: 'integer', default: 0 },
    error_class: { type: 'text', default: '' },
    error_message: { type: 'text', default: '' },
    logs_uri: { type: 'text', nullable: true },
    metrics: { type: 'jsonb', default: {} },
    batches: {
      type: 'integer',
      default: 0,
      comment: 'Internal: batches of results taken from the running attempt; the next is one more',
    },
    core_ms: {
      type: 'bigint',
      default: 0,
      comment: "Internal: milliseconds from its start to its worker's word that it ended, times the cores it had",
    },
    items: { type: 'integer', default: 0, comment: 'Internal: work items it ended' },
  },
  uniques: [{ name: 'task_executions_chunk_key', columns: ['job_id', 'task_id', 'chunk_no'] }],
});

/** A row of results.task_results: one work item. */
export interface TaskResultRow {
  job_id: string;
  task_id: string;
  item_no: number;
  molecule_id: string;
  smiles: string;
  status: WorkStatus;
  input_signature: string;
  task_execution_id: string | null;
  follows_item_no: number | null;
  score: number | null;
  result_data: Record<string, unknown> | null;
  confidence_score: number | null;
  error_class: string;
  error_message: string;
  reused_from_job_id: string | null;
  reused_from_task_id: string | null;
  reused_from_item_no: number | null;
  service_name: string;
  schema_version: number;
  created_at: Date;
  ended_at: Date | null;
  molecular_weight: number | null;
  logp: number | null;
  tpsa: number | null;
  hbd: number | null;
  hba: number | null;
  rotatable_bonds: number | null;
  cache_miss: CacheMiss | null;
  molecule_name: string;
  ended_seq: number | null;
  extends_job_id: string | null;
  extends_task_id: string | null;
  extends_item_no: number | null;
}

const FROZEN = "Confidential: of the molecule, as frozen with the job's input";

export const TaskResultEntity = new EntitySchema<TaskResultRow>({
  name: 'task_results',
  schema: 'results',
  columns: {
    job_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'task_results_pkey' },
    task_id: { type: 'text', primary: true, primaryKeyConstraintName: 'task_results_pkey' },
    item_no: { type: 'integer', primary: true, primaryKeyConstraintName: 'task_results_pkey' },
    molecule_id: { type: 'uuid' },
    smiles: { type: 'text', comment: 'Confidential: canonical SMILES, as hashed and run' },
    status: { type: 'enum', enum: [...WORK_STATUSES], enumName: 'work_status', default: 'pending' },
    input_signature: { type: 'text' },
    task_execution_id: { type: 'uuid', nullable: true },
    follows_item_no: { type: 'integer', nullable: true },
    score: { type: 'double precision', nullable: true },
    result_data: { type: 'jsonb', nullable: true },
    confidence_score: {
      type: 'double precision',
      nullable: true,
      comment: 'Internal: share of replicas that agree with the best; search convergence, not probability of binding',
    },
    error_class: { type: 'text', default: '' },
    error_message: { type: 'text', default: '' },
    reused_from_job_id: { type: 'uuid', nullable: true },
    reused_from_task_id: { type: 'text', nullable: true },
    reused_from_item_no: { type: 'integer', nullable: true },
    service_name: { type: 'text', default: '' },
    schema_version: { type: 'integer', default: 1 },
    created_at: { type: 'timestamptz', default: () => 'now()' },
    ended_at: { type: 'timestamptz', nullable: true },
    molecular_weight: {
      type: 'double precision',
      nullable: true,
      comment: `${FROZEN}, g/mol; null where catalog did not say`,
    },
    logp: { type: 'double precision', nullable: true, comment: `${FROZEN}; Crippen's estimate` },
    tpsa: { type: 'double precision', nullable: true, comment: `${FROZEN}, Å²` },
    hbd: { type: 'smallint', nullable: true, comment: `${FROZEN}: hydrogen bond donors` },
    hba: { type: 'smallint', nullable: true, comment: `${FROZEN}: hydrogen bond acceptors` },
    rotatable_bonds: { type: 'smallint', nullable: true, comment: FROZEN },
    cache_miss: {
      type: 'enum',
      enum: [...CACHE_MISSES],
      enumName: 'cache_miss',
      nullable: true,
      comment: 'Internal: why no earlier result answered it; null when one did, or none was looked for',
    },
    molecule_name: {
      type: 'text',
      default: '',
      comment: 'Confidential: of the molecule, when the job was made; empty where catalog did not say',
    },
    ended_seq: {
      type: 'integer',
      nullable: true,
      comment:
        'Internal: the first event of the transaction that ended it; null where it ended before there was this column, or nobody asks',
    },
    extends_job_id: {
      type: 'uuid',
      nullable: true,
      comment:
        'Internal: the job of the item whose replicas are the first of this one; that may be gone once this one has ended',
    },
    extends_task_id: { type: 'text', nullable: true, comment: "Internal: that item's task" },
    extends_item_no: { type: 'integer', nullable: true, comment: 'Internal: that item' },
  },
});

/** A row of results.staged_results: what a running execution has said of an item. */
export interface StagedResultRow {
  task_execution_id: string;
  item_no: number;
  status: 'scored' | 'failed';
  score: number | null;
  result_data: Record<string, unknown> | null;
  confidence_score: number | null;
  error_class: string;
  error_message: string;
}

export const StagedResultEntity = new EntitySchema<StagedResultRow>({
  name: 'staged_results',
  schema: 'results',
  columns: {
    task_execution_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'staged_results_pkey' },
    item_no: { type: 'integer', primary: true, primaryKeyConstraintName: 'staged_results_pkey' },
    status: { type: 'enum', enum: [...WORK_STATUSES], enumName: 'work_status' },
    score: { type: 'double precision', nullable: true },
    result_data: { type: 'jsonb', nullable: true },
    confidence_score: { type: 'double precision', nullable: true },
    error_class: { type: 'text', default: '' },
    error_message: { type: 'text', default: '' },
  },
});

/** A row of results.docking_results: one pose. Scores kcal/mol, RMSD ångström. */
export interface DockingResultRow {
  job_id: string;
  task_id: string;
  item_no: number;
  replicate: number;
  pose_rank: number;
  molecule_id: string;
  score: number;
  raw_score: number;
  rmsd_lb: number;
  rmsd_ub: number;
  task_execution_id: string;
  chunk_no: number;
  pose_object: string | null;
  pose_offset: number | null;
  pose_length: number | null;
  metadata: Record<string, unknown> | null;
}

const poseKey = { primary: true, primaryKeyConstraintName: 'docking_results_pkey' } as const;

export const DockingResultEntity = new EntitySchema<DockingResultRow>({
  name: 'docking_results',
  schema: 'results',
  columns: {
    job_id: { type: 'uuid', ...poseKey },
    task_id: { type: 'text', ...poseKey },
    item_no: { type: 'integer', ...poseKey },
    replicate: { type: 'integer', ...poseKey },
    pose_rank: { type: 'integer', ...poseKey },
    molecule_id: { type: 'uuid' },
    score: { type: 'double precision' },
    raw_score: { type: 'double precision' },
    rmsd_lb: { type: 'double precision' },
    rmsd_ub: { type: 'double precision' },
    task_execution_id: { type: 'uuid' },
    chunk_no: { type: 'integer' },
    pose_object: {
      type: 'uuid',
      nullable: true,
      comment: 'Internal: the object that holds its structure; null where the engine gave none',
    },
    pose_offset: {
      type: 'integer',
      nullable: true,
      comment: 'Internal: where its piece begins in the object, bytes',
    },
    pose_length: { type: 'integer', nullable: true, comment: 'Internal: how long its piece is, bytes' },
    metadata: { type: 'jsonb', nullable: true },
  },
});
