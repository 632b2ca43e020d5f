// A worker that sends the batches of one execution, one stream after the other, until all are kept: made to be killed.
import { createClient } from '@connectrpc/connect';
import { createServiceTokenSigner, serviceTokenInterceptor } from '@mad/auth';
import { sleep } from '@mad/process';
import { ExecutionService } from '@mad/proto/results';
import { grpcTransport } from '@mad/rpc';
import { BATCHES, batchOf } from '../batches.ts';

/** What it is told. */
export interface AppenderOptions {
  /** Results' gRPC. */
  port: number;
  privateJwk: Parameters<typeof createServiceTokenSigner>[0]['privateJwk'];
  orgId: string;
  taskExecutionId: string;
  leaseToken: string;
}

/** Between two batches of a stream: there is something to be cut. */
const PAUSE_MS = 30;
const AGAIN_MS = 50;

const { port, privateJwk, ...lease } = JSON.parse(process.argv[2]!) as AppenderOptions;
const signer = createServiceTokenSigner({ service: 'worker', privateJwk });
const transport = grpcTransport(`127.0.0.1:${port}`, { interceptors: [serviceTokenInterceptor(signer)] });
const executions = createClient(ExecutionService, transport);

// Whoever starts after a crash knows of nothing and begins with the first: what is kept already is passed over.
for (let next = 1; next <= BATCHES;) {
  const from = next;
  async function* batches() {
    for (let batch = from; batch <= BATCHES; batch += 1) {
      yield { ...lease, attempt: 1, ...batchOf(batch) };
      await sleep(PAUSE_MS);
    }
  }
  try {
    ({ nextBatch: next } = await executions.appendResults(batches(), { timeoutMs: 60_000 }));
    process.send!(next);
  } catch {
    await sleep(AGAIN_MS);
  }
}
transport.close();
process.disconnect();
