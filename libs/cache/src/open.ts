import type { Logger } from '@mad/process';
import type { Cache, PubSub } from './cache.ts';
import { memoryCache, memoryPubSub } from './memory.ts';
import { redisCache, redisPubSub } from './redis.ts';

/** A cache and its messages, opened and closed together. */
export interface OpenCache {
  cache: Cache;
  pubSub: PubSub;
  close(): Promise<void>;
}

/** Through Redis where a URL is given, else within this process. */
export async function openPubSub({ url, logger }: { url?: string; logger?: Logger } = {}): Promise<PubSub> {
  return url ? redisPubSub(url, { logger }) : memoryPubSub();
}

/** In Redis where a URL is given, else in this process. */
export async function openCache({ url, logger }: { url?: string; logger?: Logger } = {}): Promise<OpenCache> {
  const cache = url ? await redisCache(url, { logger }) : memoryCache();
  const pubSub = await openPubSub({ url, logger });
  return {
    cache,
    pubSub,
    async close() {
      await Promise.all([cache.close(), pubSub.close()]);
    },
  };
}
