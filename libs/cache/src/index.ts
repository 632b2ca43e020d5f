export type { Cache, PubSub, Subscription } from './cache.ts';
export { memoryCache, memoryPubSub } from './memory.ts';
export { redisCache, redisPubSub } from './redis.ts';
export { openCache } from './open.ts';
export type { OpenCache } from './open.ts';
export { readThrough } from './read-through.ts';
export type { ReadThrough, ReadThroughOptions } from './read-through.ts';
