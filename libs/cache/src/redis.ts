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
/** A connection that leaves a command unanswered for so long is given up, and with it all that waits on it. */
const SOCKET_TIMEOUT_MS = SECOND_MS;
const QUESTION_MS = 10 * SECOND_MS;

/** Fails at once while there is no connection, and keeps nothing in line for later. */
const IMPATIENT = {
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
  maxRetriesPerRequest: 0,
  commandTimeout: COMMAND_TIMEOUT_MS,
  socketTimeout: SOCKET_TIMEOUT_MS,
} satisfies RedisOptions;

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
  const client = connect(url, options.logger, IMPATIENT);
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

/** The text of a message as it was sent; undefined for what no one of ours has sent. */
function messageIn(text: string): { message: unknown } | undefined {
  try {
    return { message: JSON.parse(text) };
  } catch {
    return undefined;
  }
}

/**
 * Messages between processes, through Redis. A connection that was lost subscribes again by itself; nothing waits in
 * line for it meanwhile.
 */
export async function redisPubSub(url: string, options: RedisAdapterOptions = {}): Promise<PubSub> {
  const { prefix = DEFAULT_PREFIX, logger } = options;
  const publisher = connect(url, logger, IMPATIENT);
  // A connection that subscribes can do nothing else.
  const subscriber = connect(url, undefined, { ...IMPATIENT, autoResubscribe: false });
  const handlers = new Map<string, Set<(message: unknown) => void>>();
  subscriber.on('message', (channel: string, text: string) => {
    const received = messageIn(text);
    if (received === undefined) {
      logger?.debug({ channel }, 'a message that is no JSON');
      return;
    }
    for (const deliver of handlers.get(channel) ?? []) deliver(received.message);
  });
  let listening = false;
  const listenTo = async (names: readonly string[]): Promise<void> => {
    // What fails here fails with the connection, and the next one subscribes.
    await subscriber.subscribe(...names).then(
      () => (listening = true),
      () => undefined,
    );
  };
  subscriber.on('ready', () => {
    if (handlers.size > 0) void listenTo([...handlers.keys()]);
  });
  subscriber.on('close', () => (listening = false));
  // It only listens, so without a question now and then it would not notice that the other end is gone.
  const question = setInterval(() => {
    if (subscriber.status === 'ready') subscriber.ping().catch(() => undefined);
  }, QUESTION_MS).unref();
  // Once this returns, what is published after a subscription reaches it.
  await Promise.all([firstAttempt(publisher), firstAttempt(subscriber)]);
  return {
    async publish(channel, message) {
      await publisher.publish(prefix + channel, encode(message).toString('utf8'));
    },
    async subscribe(channel, handler) {
      const name = prefix + channel;
      const deliver = (message: unknown): void => handler(message);
      const known = handlers.get(name) ?? new Set();
      handlers.set(name, known.add(deliver));
      // Without Redis nobody publishes either: it is asked for when Redis is there.
      if (subscriber.status === 'ready') await listenTo([name]);
      return async () => {
        known.delete(deliver);
        if (known.size > 0 || handlers.get(name) !== known) return;
        handlers.delete(name);
        if (subscriber.status === 'ready') await subscriber.unsubscribe(name).catch(() => undefined);
      };
    },
    live: () => listening,
    async close() {
      clearInterval(question);
      publisher.disconnect();
      subscriber.disconnect();
    },
  };
}

/** One look at a Redis server, by a connection that is kept. */
export interface RedisProbe {
  /** Milliseconds of one round trip. Rejects within half a second when there is no answer. */
  ping(): Promise<number>;
  close(): void;
}

/** Opens a probe, also while Redis is away. */
export function redisProbe(url: string, options: { logger?: Logger } = {}): RedisProbe {
  const client = connect(url, options.logger, IMPATIENT);
  const first = firstAttempt(client);
  return {
    async ping() {
      await first;
      const began = performance.now();
      await client.ping();
      return performance.now() - began;
    },
    close: () => client.disconnect(),
  };
}
