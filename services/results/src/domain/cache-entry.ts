/** How a job uses earlier results of its organization. */
export const CACHE_POLICIES = ['use', 'refresh', 'bypass', 'only'] as const;
export type CachePolicy = (typeof CACHE_POLICIES)[number];

/** Whether an entry may be used: `pinned` ones neither expire nor are replaced. */
export type CacheEntryStatus = 'valid' | 'invalid' | 'pinned';

/** What decides about an entry of the cache. Times in epoch milliseconds. */
export interface CacheEntry {
  status: CacheEntryStatus;
  /** How far the search converged, 0–1; null when unknown, which is below any threshold. */
  confidence: number | null;
  expiresAt: number | null;
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

function isFresh({ status, expiresAt }: CacheEntry, now: number): boolean {
  return status === 'pinned' || (status === 'valid' && (expiresAt === null || expiresAt > now));
}

/** True when the confidence reaches the threshold; a threshold of 0 asks for none. */
export function reaches(confidence: number | null, minConfidence: number): boolean {
  return minConfidence === 0 || (confidence !== null && confidence >= minConfidence);
}

/** True when the entry answers an item of a job with this threshold. */
export function isUsable(entry: CacheEntry, minConfidence: number, now: number): boolean {
  return isFresh(entry, now) && reaches(entry.confidence, minConfidence);
}

/**
 * True when a new result takes the entry's place: it has none or a dead one, the job said so (`refresh`), or the new
 * one is better converged. A pinned entry stays.
 */
export function replaces(
  entry: CacheEntry | undefined,
  confidence: number | null,
  policy: CachePolicy,
  now: number,
): boolean {
  if (!writesCache(policy)) return false;
  if (entry === undefined) return true;
  if (entry.status === 'pinned') return false;
  return policy === 'refresh' || !isFresh(entry, now) || (confidence ?? -1) > (entry.confidence ?? -1);
}
