import type { Logger, Metrics } from '@mad/process';
import type { Cache } from './cache.ts';

export interface ReadThroughOptions<T> {
  /** Names the values in keys and metrics, e.g. `pipeline_version`. Change it when their shape changes. */
  name: string;
  ttlMs: number;
  /** Gets what the cache does not have. What it throws reaches the caller; undefined is not kept. */
  load: (key: string) => Promise<T>;
  metrics?: Metrics;
  logger?: Logger;
}

/** Values that are loaded once and then come from the cache. */
export interface ReadThrough<T> {
  /** The value from the cache, else loaded. Callers who ask at the same time share one load. Never fails for the cache's sake. */
  get(key: string): Promise<T>;
  /** Drops values that changed. A load under way is not kept; another process's may still be, for `ttlMs` at most. */
  forget(...keys: string[]): Promise<void>;
}

/**
 * Reads through a cache: a hit costs no load, a miss loads once and keeps the value, and a cache that does not answer
 * costs a load each time and nothing else. Counts `cache_requests_total{cache, outcome}` with hit, miss or error.
 */
export function readThrough<T>(cache: Cache, options: ReadThroughOptions<T>): ReadThrough<T> {
  const { name, ttlMs, load, logger } = options;
  const requests = options.metrics?.counter({
    name: 'cache_requests_total',
    help: 'Look-ups in a read-through cache, by outcome: hit, miss, or error where the cache did not answer.',
    labelNames: ['cache', 'outcome'],
  });
  const underWay = new Map<string, Promise<T>>();
  const keyOf = (key: string): string => `${name}:${key}`;
  const count = (outcome: 'hit' | 'miss' | 'error'): void => requests?.inc({ cache: name, outcome });
  const complain = (error: unknown): void => logger?.debug({ err: error, cache: name }, 'the cache did not answer');

  async function find(key: string): Promise<T | undefined> {
    try {
      const found = await cache.get<T>(keyOf(key));
      count(found === undefined ? 'miss' : 'hit');
      return found;
    } catch (error) {
      count('error');
      complain(error);
      return undefined;
    }
  }

  async function fetch(key: string, isCurrent: () => boolean): Promise<T> {
    const found = await find(key);
    if (found !== undefined) return found;
    const value = await load(key);
    // Forgotten meanwhile: what was loaded may be what was changed.
    if (value !== undefined && isCurrent()) await cache.set(keyOf(key), value, ttlMs).catch(complain);
    return value;
  }

  return {
    get(key) {
      const known = underWay.get(key);
      if (known !== undefined) return known;
      const isCurrent = (): boolean => underWay.get(key) === fetching;
      const fetching: Promise<T> = fetch(key, isCurrent).finally(() => {
        if (isCurrent()) underWay.delete(key);
      });
      underWay.set(key, fetching);
      return fetching;
    },
    async forget(...keys) {
      for (const key of keys) underWay.delete(key);
      await cache.delete(...keys.map(keyOf)).catch(complain);
    },
  };
}
