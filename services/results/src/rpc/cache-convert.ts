import type { MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { CacheMiss as CacheMissMessage } from '@mad/proto/catalog';
import type { CacheForecastSchema, CacheLookUpSchema, CacheSourceSchema } from '@mad/proto/catalog';
import { CacheEntryState, type CacheEntrySchema, type FormerCacheSourceSchema } from '@mad/proto/results';
import type { ResultCacheHistoryRow, ResultCacheRow } from '../db/entities/cache.ts';
import type { CacheEntryStatus, CacheMiss } from '../domain/cache-entry.ts';
import type { Explanation, Forecast } from '../runs/explain.ts';

const MISSES: Record<CacheMiss, CacheMissMessage> = {
  never_computed: CacheMissMessage.NEVER_COMPUTED,
  invalidated: CacheMissMessage.INVALIDATED,
  expired: CacheMissMessage.EXPIRED,
  too_old: CacheMissMessage.TOO_OLD,
  low_confidence: CacheMissMessage.LOW_CONFIDENCE,
  output_missing: CacheMissMessage.OUTPUT_MISSING,
};

const STATES: Record<CacheEntryStatus, CacheEntryState> = {
  valid: CacheEntryState.VALID,
  invalid: CacheEntryState.INVALID,
  pinned: CacheEntryState.PINNED,
};

/** The wire's word for the domain's; none for none. */
export function missMessage(miss: CacheMiss | null | undefined): CacheMissMessage {
  return miss ? MISSES[miss] : CacheMissMessage.UNSPECIFIED;
}

/** The domain's word for a state asked for; undefined for unspecified. */
export function entryStatusOf(message: CacheEntryState): CacheEntryStatus | undefined {
  return (Object.keys(STATES) as CacheEntryStatus[]).find((status) => STATES[status] === message);
}

/** What says where a result comes from, of an entry or of its history. */
type Source = Pick<
  ResultCacheRow,
  'canonical_job_id' | 'canonical_task_id' | 'canonical_item_no' | 'confidence_score' | 'created_at'
> &
  Partial<Pick<ResultCacheRow, 'engine' | 'expires_at' | 'status'>>;

function sourceMessage(row: Source, inputSignature: string): MessageInitShape<typeof CacheSourceSchema> {
  const expires = row.status !== 'pinned' && row.expires_at;
  return {
    inputSignature,
    jobId: row.canonical_job_id,
    taskId: row.canonical_task_id,
    itemNo: row.canonical_item_no,
    engine: row.engine ?? '',
    confidenceScore: row.confidence_score ?? undefined,
    createTime: timestampFromDate(row.created_at),
    expireTime: expires ? timestampFromDate(expires) : undefined,
  };
}

export function entryMessage(row: ResultCacheRow): MessageInitShape<typeof CacheEntrySchema> {
  return {
    task: row.task,
    smiles: row.smiles ?? '',
    state: STATES[row.status],
    source: sourceMessage(row, row.input_signature),
    hits: BigInt(row.hit_count),
    lastUseTime: row.last_used_at === null ? undefined : timestampFromDate(row.last_used_at),
    version: row.version,
  };
}

/** `engine` is of the entry: it is part of the key, so every source of an entry has the same. */
export function formerMessage(
  row: ResultCacheHistoryRow,
  { input_signature: inputSignature, engine }: ResultCacheRow,
): MessageInitShape<typeof FormerCacheSourceSchema> {
  return {
    version: row.version,
    source: sourceMessage({ ...row, engine }, inputSignature),
    state: STATES[row.status],
    reason: row.reason,
    replaceTime: timestampFromDate(row.replaced_at),
    hits: BigInt(row.hit_count),
  };
}

export function lookUpMessage(explained: Explanation): MessageInitShape<typeof CacheLookUpSchema> {
  const { plan, smiles, signature, miss, source, nearest } = explained;
  return {
    taskId: plan.taskId,
    task: plan.task,
    smiles,
    inputSignature: signature,
    miss: missMessage(miss),
    source: source && sourceMessage(source, source.input_signature),
    nearest: nearest && sourceMessage(nearest.source, nearest.source.input_signature),
    differences: nearest?.differences ?? [],
  };
}

export function forecastMessage({ plan, hits, misses }: Forecast): MessageInitShape<typeof CacheForecastSchema> {
  const counted = [...misses].sort(([, a], [, b]) => b - a);
  return {
    taskId: plan.taskId,
    task: plan.task,
    hits: BigInt(hits),
    misses: counted.map(([miss, items]) => ({ miss: MISSES[miss], items: BigInt(items) })),
  };
}
