import type { RetentionCounts } from '../db/entities/retention.ts';

export const NOTHING: RetentionCounts = {
  jobs: 0,
  items: 0,
  poses: 0,
  events: 0,
  cache_entries: 0,
  partitions: 0,
  bytes: 0,
};

export const COUNT_KEYS = Object.keys(NOTHING) as (keyof RetentionCounts)[];

/** The counts together. */
export function sumOfCounts(...all: Partial<RetentionCounts>[]): RetentionCounts {
  return Object.fromEntries(
    COUNT_KEYS.map((key) => [key, all.reduce((total, counts) => total + (counts[key] ?? 0), 0)]),
  ) as unknown as RetentionCounts;
}
