import { availableParallelism, hostname, totalmem } from 'node:os';
import { privateJwkSetting, type ServiceIdentity } from '@mad/auth';
import { readEnv, SECOND_MS, type Env } from '@mad/process';
import type { Resources } from './domain/admission.ts';

/** Everything a worker can be told. */
export interface WorkerConfig {
  /** Its name, unique among workers: the holder of its leases. */
  name: string;
  /** What its tasks may use together. */
  resources: Resources;
  /** host:port of the services it calls. */
  catalogAddress: string;
  resultsAddress: string;
  /** Signs its calls. */
  servicePrivateJwk: ServiceIdentity['privateJwk'];
  /** How often it says that it lives and learns what to stop. */
  heartbeatMs: number;
  /** Threads that run RDKit. */
  chemistryThreads: number;
  /** Where `vina` and `obabel` are looked for. */
  searchPath: string;
  /** Where its metrics are shown: a worker has no port otherwise. */
  metrics?: { host: string; port: number };
}

const MIB = 1024 * 1024;
const HEARTBEAT_MS = 10 * SECOND_MS;

/** Reads a worker's settings from the environment. Throws a ConfigError that lists every problem. */
export function readWorkerConfig(env: Env): WorkerConfig {
  return readEnv(env, (r) => {
    const host = r.string('WORKER_HOST', { default: '127.0.0.1' });
    const port = r.integer('WORKER_METRICS_PORT', { optional: true, min: 0, max: 65_535 });
    return {
      name: r.string('WORKER_NAME', { default: `${hostname()}-${process.pid}` }),
      resources: {
        cores: r.integer('WORKER_CORES', { default: availableParallelism(), min: 1, max: 1_024 }),
        // Half of the machine's: the rest is for whatever else runs here.
        memoryMb: r.integer('WORKER_MEMORY_MB', {
          default: Math.floor(totalmem() / MIB / 2),
          min: 256,
          max: 1_048_576,
        }),
      },
      catalogAddress: r.string('CATALOG_ADDRESS', { default: '127.0.0.1:7002' }),
      resultsAddress: r.string('RESULTS_ADDRESS', { default: '127.0.0.1:7003' }),
      servicePrivateJwk: r.json('WORKER_SERVICE_KEY', privateJwkSetting),
      heartbeatMs: r.integer('WORKER_HEARTBEAT_MS', { default: HEARTBEAT_MS, min: 50, max: 30 * SECOND_MS }),
      chemistryThreads: r.integer('WORKER_CHEMISTRY_THREADS', {
        default: Math.min(2, availableParallelism()),
        min: 1,
        max: 64,
      }),
      searchPath: r.string('PATH', { default: '/usr/local/bin:/usr/bin:/bin' }),
      metrics: port === undefined ? undefined : { host, port },
    };
  });
}
