import { createServiceTokenSigner, serviceTokenInterceptor } from '@mad/auth';
import { createLogger, SECOND_MS } from '@mad/process';
import { resultsEntities } from '@mad/results';
import { grpcTransport } from '@mad/rpc';
import { openTenants } from '@mad/tenancy';
import { endWithParent, leaveSignalsToParent, serveProgram } from '../child.ts';
import { SCHEMA } from '../system.ts';
import { NO_JOB, READ_SQL } from '../tenant-fleet.ts';
import { zipfPicker } from '../zipf.ts';

/** What a process like one of results is told. */
export interface ZipfNodeOptions {
  /** The provisioner's gRPC. */
  port: number;
  privateJwk: Parameters<typeof createServiceTokenSigner>[0]['privateJwk'];
  orgIds: string[];
  inFlight: number;
  durationMs: number;
}

/** What came of its reads. */
export interface ZipfNodeResult {
  answered: number;
  errors: number;
  readsPerSecond: number;
}

leaveSignalsToParent();
endWithParent();
const { port, privateJwk, orgIds, inFlight, durationMs } = JSON.parse(process.argv[2]!) as ZipfNodeOptions;
const signer = createServiceTokenSigner({ service: 'results', privateJwk });
const routes = grpcTransport(`127.0.0.1:${port}`, { interceptors: [serviceTokenInterceptor(signer)] });
const logger = createLogger('bench', { level: 'warn' });
const tenants = await openTenants({ schema: SCHEMA, entities: resultsEntities, routes, node: 'bench-node', logger });
const pick = zipfPicker(orgIds);
const result: ZipfNodeResult = { answered: 0, errors: 0, readsPerSecond: 0 };
const start = performance.now();
const client = async (): Promise<void> => {
  while (performance.now() < start + durationMs) {
    try {
      await tenants.read(pick(), (tx) => tx.query(READ_SQL, [NO_JOB]));
      result.answered += 1;
    } catch (error) {
      result.errors += 1;
      logger.warn({ error }, 'a read failed');
    }
  }
};
await Promise.all(Array.from({ length: inFlight }, client));
result.readsPerSecond = (result.answered / (performance.now() - start)) * SECOND_MS;
await tenants.close();
routes.close();
serveProgram(result, () => Promise.resolve());
