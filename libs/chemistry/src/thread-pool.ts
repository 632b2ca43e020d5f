import type { Outcome, QuestionKind, Questions } from './molecule.ts';
import type { RdkitWorker } from './rdkit-worker.ts';
import { ThreadLost, startRdkitWorker } from './rdkit-worker.ts';
import type { Rejected } from './smiles.ts';

/** SMILES per message to a thread: enough that the message costs nothing beside the chemistry. */
const BATCH_SIZE = 64;

/** A number of RDKit threads that share all questions; callers take turns batch by batch. */
export interface ThreadPool {
  ask<K extends QuestionKind>(
    kind: K,
    additional: Questions[K]['with'],
    smiles: readonly string[],
    signal?: AbortSignal,
  ): Promise<Outcome<K>[]>;
  version(): Promise<string>;
  close(): Promise<void>;
}

/** Part of a call, and where its outcomes belong. */
interface Batch {
  smiles: string[];
  offset: number;
}

interface Call {
  kind: QuestionKind;
  with: number | undefined;
  waiting: Batch[];
  outcomes: Outcome<QuestionKind>[];
  missing: number;
  signal: AbortSignal | undefined;
  settled: PromiseWithResolvers<Outcome<QuestionKind>[]>;
}

/**
 * Makes a pool that starts a thread when a batch waits and none is idle.
 * @param options.size the most threads at once.
 * @param options.moleculeTimeoutMs how long one molecule may take.
 */
export function createThreadPool({ size, moleculeTimeoutMs }: { size: number; moleculeTimeoutMs: number }): ThreadPool {
  const calls: Call[] = [];
  const idle: RdkitWorker[] = [];
  const all = new Set<RdkitWorker>();
  const runs = new Set<Promise<void>>();
  let version: string | undefined;
  let closed = false;

  /** Starts as many runs as there are batches waiting and threads allowed. */
  function dispatch(): void {
    while (runs.size < size) {
      const next = takeBatch();
      if (!next) return;
      const run = ask(...next).finally(() => {
        runs.delete(run);
        dispatch();
      });
      runs.add(run);
    }
  }

  /** The next batch of the call whose turn it is; the call goes to the end of the line. */
  function takeBatch(): [Call, Batch] | undefined {
    for (let call = calls.shift(); call; call = calls.shift()) {
      const batch = call.signal?.aborted ? undefined : call.waiting.shift();
      if (!batch) continue;
      if (call.waiting.length > 0) calls.push(call);
      return [call, batch];
    }
    return undefined;
  }

  async function ask(call: Call, batch: Batch): Promise<void> {
    try {
      const worker = await takeWorker();
      const outcomes = await worker.ask({ kind: call.kind, with: call.with, smiles: batch.smiles });
      idle.push(worker);
      keep(call, batch.offset, outcomes);
    } catch (error) {
      if (error instanceof ThreadLost && error.index !== undefined && !closed) blame(call, batch, error, error.index);
      else fail(call, error);
    }
  }

  async function takeWorker(): Promise<RdkitWorker> {
    for (const worker of all) if (!worker.alive()) all.delete(worker);
    for (let worker = idle.pop(); worker; worker = idle.pop()) if (worker.alive()) return worker;
    const started = await startRdkitWorker(moleculeTimeoutMs);
    version = started.version;
    all.add(started);
    if (!closed) return started;
    await started.close();
    throw new Error('chemistry was closed while a thread started');
  }

  /** The thread is gone at one molecule: that one is refused, the others are asked again. */
  function blame(call: Call, batch: Batch, lost: ThreadLost, index: number): void {
    const refusal: Rejected = lost.timedOut
      ? { reason: 'TIMEOUT', message: `the molecule took longer than ${moleculeTimeoutMs} ms` }
      : { reason: 'CRASHED', message: 'RDKit cannot process this molecule' };
    const before = { smiles: batch.smiles.slice(0, index), offset: batch.offset };
    const after = { smiles: batch.smiles.slice(index + 1), offset: batch.offset + index + 1 };
    const again = [before, after].filter(({ smiles }) => smiles.length > 0);
    if (call.waiting.length === 0) calls.push(call);
    call.waiting.push(...again);
    keep(call, batch.offset + index, [refusal]);
  }

  function keep(call: Call, offset: number, outcomes: Outcome<QuestionKind>[]): void {
    for (const [i, outcome] of outcomes.entries()) call.outcomes[offset + i] = outcome;
    call.missing -= outcomes.length;
    if (call.missing === 0) call.settled.resolve(call.outcomes);
  }

  function fail(call: Call, error: unknown): void {
    call.waiting = [];
    call.settled.reject(closed ? new Error('chemistry is closed', { cause: error }) : error);
  }

  async function askAll<K extends QuestionKind>(
    kind: K,
    additional: Questions[K]['with'],
    smiles: readonly string[],
    signal?: AbortSignal,
  ): Promise<Outcome<K>[]> {
    signal?.throwIfAborted();
    if (closed) throw new Error('chemistry is closed');
    if (smiles.length === 0) return [];
    const settled = Promise.withResolvers<Outcome<QuestionKind>[]>();
    const waiting = batchesOf(smiles);
    const abort = () => settled.reject(signal?.reason);
    signal?.addEventListener('abort', abort, { once: true });
    calls.push({ kind, with: additional, waiting, outcomes: [], missing: smiles.length, signal, settled });
    dispatch();
    // A call's outcomes answer its own kind of question; the queue holds every kind.
    return await settled.promise.finally(() => signal?.removeEventListener('abort', abort));
  }

  return {
    ask: askAll,
    async version() {
      // Any answer means that a thread has started and said its version.
      if (version === undefined) await askAll('fingerprint', undefined, ['C']);
      return version ?? '';
    },
    async close() {
      closed = true;
      for (const call of calls.splice(0)) fail(call, undefined);
      await Promise.all([...all].map((worker) => worker.close()));
      await Promise.all(runs);
    },
  };
}

function batchesOf(smiles: readonly string[]): Batch[] {
  const batches: Batch[] = [];
  for (let offset = 0; offset < smiles.length; offset += BATCH_SIZE) {
    batches.push({ smiles: smiles.slice(offset, offset + BATCH_SIZE), offset });
  }
  return batches;
}
