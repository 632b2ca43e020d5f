/** How a job uses earlier results of its organization. */
export const CACHE_POLICIES = ['use', 'refresh', 'bypass', 'only'] as const;
export type CachePolicy = (typeof CACHE_POLICIES)[number];

/** Whether an entry may be used: `pinned` ones neither expire nor are replaced. */
export type CacheEntryStatus = 'valid' | 'invalid' | 'pinned';

/** Why an entry, or there being none, does not answer an item. */
export const CACHE_MISSES = [
  'never_computed',
  'invalidated',
  'expired',
  'too_old',
  'low_confidence',
  'output_missing',
] as const;
export type CacheMiss = (typeof CACHE_MISSES)[number];

/** Why a new result took the place of an entry's source. */
export type Replacement = 'better' | 'refresh' | Exclude<CacheMiss, 'never_computed' | 'low_confidence'>;

/** What decides about an entry of the cache. Times in epoch milliseconds. */
export interface CacheEntry {
  status: CacheEntryStatus;
  /** How far the search converged, 0–1; null when unknown, which is below any threshold. */
  confidence: number | null;
  expiresAt: number | null;
  /** When its source was computed. */
  createdAt: number;
  /** False when its source has lost something it had, e.g. poses. */
  complete: boolean;
}

/** What a job asks of earlier results. */
export interface Demand {
  /** 0–1; 0 asks for none. */
  minConfidence: number;
  /** Seconds; null takes any. */
  maxAgeS: number | null;
}

/** The cache's key of one input of one task: tasks of one engine share signatures and must not share results. */
export function cacheKey(task: string, inputSignature: string): string {
  return `${task}:${inputSignature}`;
}

/** True when jobs of this policy look into the cache at all. */
export function readsCache(policy: CachePolicy): boolean {
  return policy === 'use' || policy === 'only';
}

/** True when jobs of this policy leave their results in the cache. */
export function writesCache(policy: CachePolicy): boolean {
  return policy === 'use' || policy === 'refresh';
}

/** True when the confidence reaches the threshold; a threshold of 0 asks for none. */
export function reaches(confidence: number | null, minConfidence: number): boolean {
  return minConfidence === 0 || (confidence !== null && confidence >= minConfidence);
}

/** Why the entry is no source for anybody who accepts this age; undefined when it is one. Pinned ones never expire. */
function staleness(entry: CacheEntry, maxAgeS: number | null, now: number): Replacement | undefined {
  const { status, expiresAt, createdAt, complete } = entry;
  if (status === 'invalid') return 'invalidated';
  if (status === 'valid' && expiresAt !== null && expiresAt <= now) return 'expired';
  if (!complete) return 'output_missing';
  if (maxAgeS !== null && now - createdAt > maxAgeS * 1000) return 'too_old';
  return undefined;
}

/** Why the entry does not answer an item of a job that asks for this; undefined when it does. */
export function missOf(entry: CacheEntry | undefined, demand: Demand, now: number): CacheMiss | undefined {
  if (entry === undefined) return 'never_computed';
  const stale = staleness(entry, demand.maxAgeS, now) as CacheMiss | undefined;
  return stale ?? (reaches(entry.confidence, demand.minConfidence) ? undefined : 'low_confidence');
}

/**
 * Why a new result takes the place of the entry's source: the source is no longer good, or was too old for this job; the
 * job said so (`refresh`); or the new one is better converged. Undefined when the source stays, as a pinned one always
 * does.
 */
export function replacement(
  entry: CacheEntry,
  confidence: number | null,
  policy: CachePolicy,
  maxAgeS: number | null,
  now: number,
): Replacement | undefined {
  if (entry.status === 'pinned') return undefined;
  const stale = staleness(entry, maxAgeS, now);
  if (stale !== undefined) return stale;
  if (policy === 'refresh') return 'refresh';
  return (confidence ?? -1) > (entry.confidence ?? -1) ? 'better' : undefined;
}
