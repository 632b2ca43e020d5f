import type { EndedStatus } from './work-item.ts';

/** How the work items of a job, or of one of its tasks, stand. `requested` is the sum of the others. */
export interface Counters {
  requested: number;
  cached: number;
  scored: number;
  failed: number;
  skipped: number;
  cancelled: number;
  pending: number;
}

/** How many items ended, by how. */
export type Endings = Partial<Record<EndedStatus, number>>;

/** Counters of no items. */
export function noCounters(): Counters {
  return { requested: 0, cached: 0, scored: 0, failed: 0, skipped: 0, cancelled: 0, pending: 0 };
}

/** The counters after some pending items ended. Throws a RangeError when more ended than were pending. */
export function afterEndings(counters: Counters, endings: Endings): Counters {
  const next = { ...counters };
  for (const [status, count] of Object.entries(endings) as [EndedStatus, number][]) {
    next[status] += count;
    next.pending -= count;
  }
  if (next.pending < 0) throw new RangeError(`${-next.pending} more items ended than were pending`);
  return next;
}

/** The counters of a job: its tasks' in sum. */
export function sumOf(all: Iterable<Counters>): Counters {
  const sum = noCounters();
  for (const counters of all) {
    for (const key of Object.keys(sum) as (keyof Counters)[]) sum[key] += counters[key];
  }
  return sum;
}

/** Two groups of endings as one. */
export function addEndings(a: Endings, b: Endings): Endings {
  const sum: Endings = { ...a };
  for (const [status, count] of Object.entries(b) as [EndedStatus, number][]) sum[status] = (sum[status] ?? 0) + count;
  return sum;
}

/** How many items ended in all. */
export function endingsIn(endings: Endings): number {
  return Object.values(endings).reduce((sum, count) => sum + count, 0);
}
