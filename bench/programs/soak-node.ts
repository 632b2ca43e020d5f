import { setTimeout as delay } from 'node:timers/promises';
import { createServiceTokenSigner, serviceTokenInterceptor } from '@mad/auth';
import { createLogger, SECOND_MS } from '@mad/process';
import { resultsEntities } from '@mad/results';
import { grpcTransport } from '@mad/rpc';
import { openTenants } from '@mad/tenancy';
import { endWithParent, leaveSignalsToParent, serveProgram } from '../child.ts';
import { quantile } from '../regression.ts';
import { SCHEMA } from '../system.ts';
import { NO_JOB, READ_SQL } from '../tenant-fleet.ts';
import { zipfPicker } from '../zipf.ts';

/** What a process like one of results is told. */
export interface SoakNodeOptions {
  /** The provisioner's gRPC. */
  port: number;
  privateJwk: Parameters<typeof createServiceTokenSigner>[0]['privateJwk'];
  quiet: string[];
  noisy: string[];
  /** Of each noisy organization. */
  clients: number;
  /** Readers of the quiet ones, all together. */
  readers: number;
  idleMs: number;
  durationMs: number;
  sampleEveryMs: number;
}

/** What came of it. */
export interface SoakNodeResult {
  /** Of the quiet organizations' reads, in milliseconds: alone, and beside the noisy ones. */
  idleP99: number;
  p99: number;
  quietReads: number;
  quietErrors: number;
  /** What they were, each kind once. */
  errors: string[];
  noisyReads: number;
  /** Refused because an organization asked for too much at once, which is no error. */
  noisyRefused: number;
  /** MiB, by sample. */
  rss: number[];
}

/** Between two reads of one reader of quiet organizations. */
const PAUSE_MS = 5;
const AFTER_REFUSAL_MS = 10;
const MIB = 2 ** 20;

leaveSignalsToParent();
endWithParent();
const options = JSON.parse(process.argv[2]!) as SoakNodeOptions;
const signer = createServiceTokenSigner({ service: 'results', privateJwk: options.privateJwk });
const routes = grpcTransport(`127.0.0.1:${options.port}`, { interceptors: [serviceTokenInterceptor(signer)] });
const logger = createLogger('bench', { level: 'warn' });
const tenants = await openTenants({ schema: SCHEMA, entities: resultsEntities, routes, node: 'bench-soak', logger });
const read = (orgId: string): Promise<unknown> => tenants.read(orgId, (tx) => tx.query(READ_SQL, [NO_JOB]));
const pick = zipfPicker(options.quiet);
const result: SoakNodeResult = {
  idleP99: 0,
  p99: 0,
  quietReads: 0,
  quietErrors: 0,
  errors: [],
  noisyReads: 0,
  noisyRefused: 0,
  rss: [],
};
const errors = new Set<string>();

/** Reads quiet organizations for a while; answers the 99th percentile of their times. */
async function quietly(durationMs: number): Promise<number> {
  // One number for each tenth of a millisecond up to ten seconds: half an hour of times needs no memory of its own.
  const counts = new Uint32Array(100_001);
  const end = performance.now() + durationMs;
  let reads = 0;
  const reader = async (): Promise<void> => {
    while (performance.now() < end) {
      const start = performance.now();
      try {
        await read(pick());
      } catch (error) {
        result.quietErrors += 1;
        if (errors.size < 20) errors.add(String(error));
      }
      counts[Math.min(counts.length - 1, Math.round((performance.now() - start) * 10))]! += 1;
      reads += 1;
      await delay(PAUSE_MS);
    }
  };
  await Promise.all(Array.from({ length: options.readers }, reader));
  result.quietReads += reads;
  let passed = 0;
  const at = counts.findIndex((count) => (passed += count) >= reads * 0.99);
  return at / 10;
}

// The first time opens the tenants, which is not what is measured.
for (const orgId of options.quiet) await read(orgId);
result.idleP99 = await quietly(options.idleMs);
let ended = false;
const noise = options.noisy.flatMap((orgId) =>
  Array.from({ length: options.clients }, async () => {
    while (!ended) {
      try {
        await read(orgId);
        result.noisyReads += 1;
      } catch {
        result.noisyRefused += 1;
        await delay(AFTER_REFUSAL_MS);
      }
    }
  }),
);
// The median of a span's looks: a collector's moment is not growth.
const sampling = (async () => {
  const looks = 10;
  while (!ended) {
    const seen: number[] = [];
    for (let look = 0; look < looks && !ended; look += 1) {
      await delay(options.sampleEveryMs / looks);
      seen.push(process.memoryUsage.rss() / MIB);
    }
    result.rss.push(quantile(seen, 0.5));
  }
})();
await delay(SECOND_MS);
result.p99 = await quietly(options.durationMs);
ended = true;
await Promise.all([...noise, sampling]);
result.errors = [...errors];
await tenants.close();
routes.close();
serveProgram(result, () => Promise.resolve());
