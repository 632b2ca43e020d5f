import { LRUCache } from 'lru-cache';
import type { Cache, PubSub } from './cache.ts';
import { checkTtl, decode, encode } from './encoding.ts';

const DEFAULT_MAX_BYTES = 64 * 1024 * 1024;

/** A cache in this process: the default, where one process is the whole system. The least used values go first. */
export function memoryCache({ maxBytes = DEFAULT_MAX_BYTES }: { maxBytes?: number } = {}): Cache {
  const values = new LRUCache<string, Buffer>({
    maxSize: maxBytes,
    sizeCalculation: (value, key) => value.length + key.length + 1,
  });
  return {
    async get<T>(key: string) {
      const stored = values.get(key);
      return stored === undefined ? undefined : (decode(stored) as T);
    },
    async set(key, value, ttlMs) {
      values.set(key, encode(value), { ttl: checkTtl(ttlMs) });
    },
    async delete(...keys) {
      for (const key of keys) values.delete(key);
    },
    async close() {
      values.clear();
    },
  };
}

/** Messages within this process. */
export function memoryPubSub(): PubSub {
  const channels = new Map<string, Set<(text: string) => void>>();
  return {
    async publish(channel, message) {
      const text = encode(message).toString('utf8');
      // Later, as if it had gone over a network: a publisher never runs its subscribers' code.
      for (const deliver of channels.get(channel) ?? []) setImmediate(deliver, text);
    },
    async subscribe(channel, handler) {
      let active = true;
      const deliver = (text: string): void => {
        if (active) handler(JSON.parse(text));
      };
      const subscribers = channels.get(channel) ?? new Set();
      channels.set(channel, subscribers.add(deliver));
      return async () => {
        active = false;
        subscribers.delete(deliver);
        if (subscribers.size === 0 && channels.get(channel) === subscribers) channels.delete(channel);
      };
    },
    // No other process is heard at any time.
    live: () => false,
    async close() {
      channels.clear();
    },
  };
}
