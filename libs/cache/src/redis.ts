import { SECOND_MS } from '@mad/process';
import type { Logger } from '@mad/process';
import { Redis, type RedisOptions } from 'ioredis';
import type { Cache, PubSub } from './cache.ts';
import { checkTtl, decode, encode } from './encoding.ts';

/** A cache that answers later than the database is none. */
const COMMAND_TIMEOUT_MS = SECOND_MS / 4;
/** Short, because ioredis lets the timer of a failed attempt run on and hold the process up at its end. */
const CONNECT_TIMEOUT_MS = SECOND_MS / 2;
const MAX_RECONNECT_DELAY_MS = 5 * SECOND_MS;

interface RedisAdapterOptions {
  logger?: Logger;
  /** Put before every key and channel: systems that share a server do not share values. Default `mad:`. */
  prefix?: string;
}

const DEFAULT_PREFIX = 'mad:';

/** A client that fails at once while there is no connection, and goes on looking for one. */
function connect(url: string, logger: Logger | undefined, options: RedisOptions): Redis {
  const client = new Redis(url, {
    connectTimeout: CONNECT_TIMEOUT_MS,
    retryStrategy: (attempt) => Math.min(100 * 2 ** attempt, MAX_RECONNECT_DELAY_MS),
    ...options,
  });
  let reported = false;
  // Without a listener an error event would end the process. Said once per outage: it is retried every few seconds.
  client.on('error', (error: Error) => {
    if (!reported) logger?.warn({ err: error }, 'Redis is not available');
    reported = true;
  });
  client.on('ready', () => {
    if (reported) logger?.info('Redis is available again');
    reported = false;
  });
  return client;
}

/** Waits for the first connection or its failure: whoever opens a cache may use it at once. */
async function firstAttempt(client: Redis): Promise<void> {
  if (client.status === 'ready') return;
  await new Promise<void>((settle) => {
    client.once('ready', () => settle());
    client.once('close', () => settle());
  });
}

/** A cache shared by processes, in Redis 6 or later. Opens also while Redis is away; its methods then reject at once. */
export async function redisCache(url: string, options: RedisAdapterOptions = {}): Promise<Cache> {
  const { prefix = DEFAULT_PREFIX } = options;
  const client = connect(url, options.logger, {
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    commandTimeout: COMMAND_TIMEOUT_MS,
  });
  await firstAttempt(client);
  return {
    async get<T>(key: string) {
      const stored = await client.getBuffer(prefix + key);
      return stored === null ? undefined : (decode(stored) as T);
    },
    async set(key, value, ttlMs) {
      await client.set(prefix + key, encode(value), 'PX', checkTtl(ttlMs));
    },
    async delete(...keys) {
      if (keys.length > 0) await client.del(...keys.map((key) => prefix + key));
    },
    async close() {
      client.disconnect();
    },
  };
}

/** Messages between processes, through Redis. A connection that was lost subscribes again by itself. */
export async function redisPubSub(url: string, options: RedisAdapterOptions = {}): Promise<PubSub> {
  const { prefix = DEFAULT_PREFIX } = options;
  const publisher = connect(url, options.logger, {
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    commandTimeout: COMMAND_TIMEOUT_MS,
  });
  // A connection that subscribes can do nothing else. It may wait for Redis: a subscription has no deadline.
  const subscriber = connect(url, undefined, { maxRetriesPerRequest: null });
  const handlers = new Map<string, Set<(text: string) => void>>();
  subscriber.on('message', (channel: string, text: string) => {
    for (const deliver of handlers.get(channel) ?? []) deliver(text);
  });
  // Once this returns, what is published after a subscription reaches it.
  await Promise.all([firstAttempt(publisher), firstAttempt(subscriber)]);
  return {
    async publish(channel, message) {
      await publisher.publish(prefix + channel, encode(message).toString('utf8'));
    },
    async subscribe(channel, handler) {
      const name = prefix + channel;
      const deliver = (text: string): void => handler(JSON.parse(text));
      const known = handlers.get(name) ?? new Set();
      handlers.set(name, known.add(deliver));
      // Without Redis nobody publishes either; the command waits in line until it is there.
      const asked = subscriber.subscribe(name);
      if (subscriber.status === 'ready') await asked;
      else asked.catch(() => undefined);
      return async () => {
        known.delete(deliver);
        if (known.size > 0 || handlers.get(name) !== known) return;
        handlers.delete(name);
        if (subscriber.status === 'ready') await subscriber.unsubscribe(name);
      };
    },
    async close() {
      publisher.disconnect();
      subscriber.disconnect();
    },
  };
}
