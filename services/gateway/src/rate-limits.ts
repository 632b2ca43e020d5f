import { createHash } from 'node:crypto';
import { Code } from '@connectrpc/connect';
import { MINUTE_MS, SECOND_MS, type Logger } from '@mad/process';
import { rpcError } from '@mad/rpc';
import { Redis } from 'ioredis';
import { RateLimiterMemory, RateLimiterRedis, RateLimiterRes, type RateLimiterAbstract } from 'rate-limiter-flexible';

/** Whose requests are counted together. */
export type RateScope = 'token' | 'organization' | 'address';

/** How many requests a minute each may make; 0 is no limit. */
export type RatesPerMinute = Record<RateScope, number>;

/** Counts requests in windows of a minute. */
export interface RateLimits {
  /** Counts one request of a token, an organization or an address. Throws RESOURCE_EXHAUSTED (RATE_LIMITED) over the limit. */
  count(scope: RateScope, key: string): Promise<void>;
  close(): Promise<void>;
}

const WINDOW_S = MINUTE_MS / SECOND_MS;
/** A count that takes longer is made in this process instead: it must not slow down what it protects. */
const COMMAND_TIMEOUT_MS = SECOND_MS / 4;
const MAX_RECONNECT_DELAY_MS = 5 * SECOND_MS;

/** Counts in Redis, for all gateways together, where a URL is given; while it is away, and without it, in this process. */
export function openRateLimits(
  rates: RatesPerMinute,
  { redisUrl, logger }: { redisUrl: string | undefined; logger: Logger },
): RateLimits {
  const redis = redisUrl === undefined ? undefined : connect(redisUrl, logger);
  const limiterOf = (scope: RateScope): RateLimiterAbstract | undefined => {
    const points = rates[scope];
    if (points === 0) return undefined;
    const window = { points, duration: WINDOW_S, keyPrefix: `mad:rate:${scope}` };
    const inProcess = new RateLimiterMemory(window);
    if (!redis) return inProcess;
    return new RateLimiterRedis({
      ...window,
      storeClient: redis,
      rejectIfRedisNotReady: true,
      insuranceLimiter: inProcess,
      // Who is over the limit is refused here until the window ends, without asking again.
      inMemoryBlockOnConsumed: points + 1,
    });
  };
  const limiters = {
    token: limiterOf('token'),
    organization: limiterOf('organization'),
    address: limiterOf('address'),
  };
  return {
    async count(scope, key) {
      try {
        // Keys are digests: what is counted is often a secret, and may be of any length.
        await limiters[scope]?.consume(createHash('sha256').update(key).digest('base64url'));
      } catch (refusal) {
        if (!(refusal instanceof RateLimiterRes)) throw refusal;
        throw tooMany(scope, rates[scope], refusal.msBeforeNext);
      }
    },
    async close() {
      redis?.disconnect();
    },
  };
}

function tooMany(scope: RateScope, limit: number, retryAfterMs: number) {
  return rpcError(
    Code.ResourceExhausted,
    'RATE_LIMITED',
    `too many requests: at most ${limit} a minute of one ${scope}`,
    { scope, limit_per_minute: String(limit) },
    { retryAfterMs },
  );
}

/** A client that fails at once while there is no connection, and goes on looking for one. */
function connect(url: string, logger: Logger): Redis {
  const client = new Redis(url, {
    connectTimeout: SECOND_MS / 2,
    commandTimeout: COMMAND_TIMEOUT_MS,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    retryStrategy: (attempt) => Math.min(100 * 2 ** attempt, MAX_RECONNECT_DELAY_MS),
  });
  let reported = false;
  client.on('error', (error: Error) => {
    if (!reported) logger.warn({ error }, 'Redis is not available: requests are counted by each gateway for itself');
    reported = true;
  });
  client.on('ready', () => (reported = false));
  return client;
}
