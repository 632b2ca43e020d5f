import { readEnv, SECOND_MS, type Env } from '@mad/process';
import { privateJwkSetting, type ServiceIdentity } from '@mad/auth';
import type { Addresses } from './upstreams.ts';

/** What the gateway is told. */
export interface GatewayConfig {
  host: string;
  port: number;
  /** host:port of each service's gRPC listener. */
  addresses: Addresses;
  /** The private key that signs the gateway's own calls. */
  servicePrivateJwk: ServiceIdentity['privateJwk'];
  /** The Redis that the services use, where they do: looked at by /ready. */
  redisUrl?: string;
  /** Largest request body, bytes. */
  bodyLimitBytes: number;
  /** Milliseconds a REST request may take, streams aside. */
  timeoutMs: number;
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
    redisUrl: r.url('REDIS_URL', { optional: true }),
    bodyLimitBytes: r.integer('GATEWAY_BODY_LIMIT_BYTES', { default: 6 * 1024 * 1024, min: 1024 }),
    timeoutMs: r.integer('GATEWAY_TIMEOUT_MS', { default: 60 * SECOND_MS, min: 100 }),
  }));
}
