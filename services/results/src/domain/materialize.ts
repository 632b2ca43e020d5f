import type { CacheMiss, CachePolicy } from './cache-entry.ts';
import { blocksDownstream, type ItemError, type WorkStatus } from './work-item.ts';

/** What decides how a new work item begins. */
export interface NewItem<Source> {
  policy: CachePolicy;
  /** A usable earlier result. */
  hit: Source | undefined;
  /** Why there is none; undefined when none was looked for. */
  miss?: CacheMiss | undefined;
  /** The statuses of the same molecule in the tasks this one depends on. */
  upstream: readonly WorkStatus[];
  /** The first item of the same task with the same input that has to be computed. */
  leader: number | undefined;
}

/** How a new work item begins. A pending one without `follows` has to be computed. */
export type Beginning<Source> =
  | { status: 'cached'; source: Source }
  | { status: 'skipped' }
  | ({ status: 'failed' } & ItemError)
  | { status: 'pending'; follows: number | undefined };

/** Decides how a new work item begins. */
export function beginItem<Source>({
  policy,
  hit,
  miss = 'never_computed',
  upstream,
  leader,
}: NewItem<Source>): Beginning<Source> {
  if (hit !== undefined) return { status: 'cached', source: hit };
  if (upstream.some(blocksDownstream)) return { status: 'skipped' };
  if (policy === 'only') {
    return {
      status: 'failed',
      errorClass: 'CACHE_MISS',
      errorMessage: `no earlier result fits (${miss.replaceAll('_', ' ')}), and the job asked for none but those`,
    };
  }
  return { status: 'pending', follows: leader };
}

/** The execution, from 1, that runs the item at this place (from 0) among those of a task that have to be computed. */
export function chunkNo(place: number, chunkSize: number): number {
  return Math.floor(place / chunkSize) + 1;
}
