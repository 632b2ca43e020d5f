import { parentPort, workerData } from 'node:worker_threads';
import { fingerprint, normalize, respell } from './answer.ts';
import type { Outcome, QuestionKind } from './molecule.ts';
import type { RdkitModule } from './rdkit-module.ts';
import { initializeRdkit } from './rdkit-module.ts';
import type { ThreadData, ThreadReply, ThreadRequest } from './thread-protocol.ts';
import { NO_POSITION } from './thread-protocol.ts';

// The body of one worker thread: it owns one RDKit module and answers one request at a time.
const port = parentPort;
if (!port) throw new Error('rdkit-thread.ts runs as a worker thread only');
const position = new Int32Array((workerData as ThreadData).position);

let rdkit = await initializeRdkit();
say({ version: rdkit.version });

port.on('message', (request: ThreadRequest) => {
  void answerAll(request).then((outcomes) => {
    Atomics.store(position, 0, NO_POSITION);
    say({ outcomes });
  });
});

async function answerAll(request: ThreadRequest): Promise<Outcome<QuestionKind>[]> {
  const outcomes: Outcome<QuestionKind>[] = [];
  for (const [index, smiles] of request.smiles.entries()) {
    Atomics.store(position, 0, index);
    try {
      outcomes.push(answer(rdkit, request, smiles));
    } catch {
      // Whatever was thrown, the module's memory can no longer be trusted: later molecules would fail or hang.
      rdkit = await initializeRdkit();
      outcomes.push({ reason: 'CRASHED', message: 'RDKit cannot process this molecule' });
    }
  }
  return outcomes;
}

function answer(module: RdkitModule, request: ThreadRequest, smiles: string): Outcome<QuestionKind> {
  if (request.kind === 'normalize') return normalize(module, smiles);
  if (request.kind === 'fingerprint') return fingerprint(module, smiles);
  return respell(module, smiles, request.with ?? 0);
}

function say(reply: ThreadReply): void {
  port?.postMessage(reply);
}
