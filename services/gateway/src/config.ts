import { isIP } from 'node:net';
import { readEnv, SECOND_MS, type Env, type EnvReader } from '@mad/process';
import { privateJwkSetting, type ServiceIdentity } from '@mad/auth';
import type { RatesPerMinute } from './rate-limits.ts';
import type { Addresses } from './upstreams.ts';

/** What the gateway is told. */
export interface GatewayConfig {
  host: string;
  port: number;
  /** host:port of each service's gRPC listener. */
  addresses: Addresses;
  /** The private key that signs the gateway's own calls. */
  servicePrivateJwk: ServiceIdentity['privateJwk'];
  /** Largest request body, bytes. */
  bodyLimitBytes: number;
  /** Largest head of a request (its line and headers), bytes. */
  headerLimitBytes: number;
  /** Milliseconds a REST request may take, streams aside. */
  timeoutMs: number;
  /** Milliseconds of silence after which server-sent events get a comment, so that nobody in between hangs up. */
  heartbeatMs: number;
  /** How many requests a minute are let in. */
  rates: RatesPerMinute;
  /** The Redis that the services use too: requests are counted in it and /ready looks at it; without it in this process. */
  redisUrl: string | undefined;
  /** Origins (scheme://host:port) whose pages may call the gateway from a browser. */
  corsOrigins: readonly string[];
  /** Proxies (addresses or networks) whose `x-forwarded-for` is believed. */
  trustProxy: readonly string[];
  /** At its end the gateway says it is not ready for so many milliseconds before it stops accepting. */
  drainMs: number;
  /** Milliseconds that calls in flight may take to finish after that. */
  finishMs: number;
}

/** Reads the gateway's settings from the environment; all problems are reported at once. */
export function readGatewayConfig(env: Env): GatewayConfig {
  return readEnv(env, (r) => ({
    host: r.string('GATEWAY_HOST', { default: '127.0.0.1' }),
    port: r.integer('GATEWAY_PORT', { default: 8080, min: 0, max: 65_535 }),
    addresses: {
      identity: r.string('IDENTITY_ADDRESS', { default: '127.0.0.1:7001' }),
      catalog: r.string('CATALOG_ADDRESS', { default: '127.0.0.1:7002' }),
      results: r.string('RESULTS_ADDRESS', { default: '127.0.0.1:7003' }),
      provisioner: r.string('PROVISIONER_ADDRESS', { default: '127.0.0.1:7004' }),
    },
    servicePrivateJwk: r.json('GATEWAY_SERVICE_KEY', privateJwkSetting),
    bodyLimitBytes: r.integer('GATEWAY_BODY_LIMIT_BYTES', { default: 6 * 1024 * 1024, min: 1024 }),
    headerLimitBytes: r.integer('GATEWAY_HEADER_LIMIT_BYTES', { default: 16 * 1024, min: 4096 }),
    timeoutMs: r.integer('GATEWAY_TIMEOUT_MS', { default: 60 * SECOND_MS, min: 100 }),
    heartbeatMs: r.integer('GATEWAY_HEARTBEAT_MS', { default: 15 * SECOND_MS, min: 100 }),
    rates: {
      token: r.integer('GATEWAY_TOKEN_RATE', { default: 12_000, min: 0 }),
      organization: r.integer('GATEWAY_ORGANIZATION_RATE', { default: 60_000, min: 0 }),
      address: r.integer('GATEWAY_ADDRESS_RATE', { default: 1_200, min: 0 }),
    },
    redisUrl: r.url('REDIS_URL', { optional: true }),
    corsOrigins: list(r, 'GATEWAY_CORS_ORIGINS', isOrigin, 'an origin such as https://console.example.org'),
    trustProxy: list(r, 'GATEWAY_TRUST_PROXY', isNetwork, 'an address or network such as 10.0.0.0/8'),
    drainMs: r.integer('GATEWAY_DRAIN_MS', { default: SECOND_MS, min: 0 }),
    finishMs: r.integer('GATEWAY_FINISH_MS', { default: 8 * SECOND_MS, min: 0 }),
  }));
}

/** A setting of several values, divided by commas. */
function list(r: EnvReader, name: string, isOne: (text: string) => boolean, expected: string): string[] {
  const values = (r.string(name, { default: '' }) ?? '')
    .split(',')
    .map((value) => value.trim())
    .filter((value) => value !== '');
  const wrong = values.find((value) => !isOne(value));
  if (wrong !== undefined) r.problem(name, `'${wrong}' is not ${expected}`);
  return values;
}

function isOrigin(text: string): boolean {
  return URL.canParse(text) && new URL(text).origin === text && /^https?:/.test(text);
}

function isNetwork(text: string): boolean {
  const [address = '', bits, ...rest] = text.split('/');
  const version = isIP(address);
  if (version === 0 || rest.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128));
}
