import { EntitySchema } from '@mad/postgres';
import type { CacheEntryStatus, Replacement } from '../../domain/cache-entry.ts';

/** A row of results.result_cache. */
export interface ResultCacheRow {
  cache_key: string;
  task: string;
  input_signature: string;
  canonical_job_id: string;
  canonical_task_id: string;
  canonical_item_no: number;
  confidence_score: number | null;
  artifact_map: Record<string, unknown>;
  metrics_summary: Record<string, unknown>;
  status: CacheEntryStatus;
  hit_count: number;
  last_used_at: Date | null;
  created_at: Date;
  expires_at: Date | null;
  version: number;
  engine: string;
  smiles: string | null;
  family: string | null;
  replicas: number | null;
}

export const ResultCacheEntity = new EntitySchema<ResultCacheRow>({
  name: 'result_cache',
  schema: 'results',
  columns: {
    cache_key: { type: 'text', primary: true, primaryKeyConstraintName: 'result_cache_pkey' },
    task: { type: 'text' },
    input_signature: { type: 'text' },
    canonical_job_id: { type: 'uuid' },
    canonical_task_id: { type: 'text' },
    canonical_item_no: { type: 'integer' },
    confidence_score: { type: 'double precision', nullable: true },
    artifact_map: { type: 'jsonb', default: {} },
    metrics_summary: { type: 'jsonb', default: {} },
    status: { type: 'text', default: 'valid' },
    hit_count: { type: 'bigint', default: 0 },
    last_used_at: { type: 'timestamptz', nullable: true },
    created_at: { type: 'timestamptz', default: () => 'now()' },
    expires_at: { type: 'timestamptz', nullable: true },
    version: {
      type: 'integer',
      default: 1,
      comment: 'Internal: how many sources it has had; the former ones are in result_cache_history',
    },
    engine: { type: 'text', default: '', comment: 'Internal: the engine, with its version, that computed it' },
    smiles: {
      type: 'text',
      nullable: true,
      comment: 'Confidential: the molecule, canonical, to find what it was computed with before',
    },
    family: {
      type: 'text',
      nullable: true,
      comment:
        'Internal: sha256 of its input without the number of replicas; null where the task has none, or from before it was noted',
    },
    replicas: { type: 'integer', nullable: true, comment: 'Internal: how many replicas it holds' },
  },
});

/** A row of results.result_cache_history: a source that an entry had before. */
export interface ResultCacheHistoryRow {
  cache_key: string;
  version: number;
  canonical_job_id: string;
  canonical_task_id: string;
  canonical_item_no: number;
  confidence_score: number | null;
  metrics_summary: Record<string, unknown>;
  status: CacheEntryStatus;
  hit_count: number;
  last_used_at: Date | null;
  created_at: Date;
  replaced_at: Date;
  reason: Replacement;
}

const historyKey = { primary: true, primaryKeyConstraintName: 'result_cache_history_pkey' } as const;

export const ResultCacheHistoryEntity = new EntitySchema<ResultCacheHistoryRow>({
  name: 'result_cache_history',
  schema: 'results',
  columns: {
    cache_key: { type: 'text', ...historyKey },
    version: { type: 'integer', ...historyKey },
    canonical_job_id: { type: 'uuid' },
    canonical_task_id: { type: 'text' },
    canonical_item_no: { type: 'integer' },
    confidence_score: { type: 'double precision', nullable: true },
    metrics_summary: { type: 'jsonb' },
    status: { type: 'text' },
    hit_count: { type: 'bigint' },
    last_used_at: { type: 'timestamptz', nullable: true },
    created_at: { type: 'timestamptz' },
    replaced_at: { type: 'timestamptz', default: () => 'now()' },
    reason: { type: 'text' },
  },
});
