import { invalid } from '@mad/rpc';
import { FilterError, leavesOutBetter, parseFilter, type HitFilter } from '../domain/hit-filter.ts';

/** The filter of hits that a request says; INVALID_ARGUMENT naming `filter` when it cannot be read. */
export function requireFilter(text: string): HitFilter {
  try {
    return parseFilter(text);
  } catch (error) {
    throw error instanceof FilterError ? invalid('filter', error.message) : error;
  }
}

/** INVALID_ARGUMENT where ranks are asked for that nobody knows. */
export function requireKnownRanks(filter: HitFilter, lowerIsBetter: boolean): void {
  if (filter.maxRank !== undefined && leavesOutBetter(filter, lowerIsBetter)) {
    throw invalid('filter', 'rank: is not known where the score leaves out better hits');
  }
}
