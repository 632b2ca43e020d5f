import { Worker } from 'node:worker_threads';
import { SECOND_MS } from '@mad/process';
import type { Outcome, QuestionKind } from './molecule.ts';
import type { ThreadReply, ThreadRequest } from './thread-protocol.ts';
import { NO_POSITION } from './thread-protocol.ts';

const START_TIMEOUT_MS = 60 * SECOND_MS;

/** A thread that ended while it worked, and the molecule it was at (undefined: at none). */
export class ThreadLost extends Error {
  readonly index: number | undefined;
  readonly timedOut: boolean;

  constructor(index: number | undefined, timedOut: boolean, cause?: unknown) {
    super('the RDKit thread ended', { cause });
    this.index = index;
    this.timedOut = timedOut;
  }
}

/** One RDKit thread as its pool sees it: one request at a time, and a watch on every molecule. */
export interface RdkitWorker {
  version: string;
  /** False once the thread has ended, for whatever reason. */
  alive(): boolean;
  /** @throws ThreadLost when a molecule took too long or the thread died; the worker is then gone. */
  ask(request: ThreadRequest): Promise<Outcome<QuestionKind>[]>;
  close(): Promise<void>;
}

/**
 * Starts a thread and waits until RDKit is ready in it. An idle thread does not keep the process alive.
 * @param moleculeTimeoutMs how long one molecule may take before the thread is ended.
 */
export async function startRdkitWorker(moleculeTimeoutMs: number): Promise<RdkitWorker> {
  const position = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)).fill(NO_POSITION);
  const worker = new Worker(new URL('./rdkit-thread.ts', import.meta.url), {
    workerData: { position: position.buffer },
  });
  let alive = true;
  worker.on('error', () => undefined).on('exit', () => (alive = false));
  const first = await nextReply(worker, () => undefined, START_TIMEOUT_MS).catch(async (error: unknown) => {
    await worker.terminate();
    throw error;
  });
  worker.unref();

  return {
    version: 'version' in first ? first.version : '',
    alive: () => alive,
    async ask(request) {
      worker.ref();
      worker.postMessage(request, []);
      try {
        const reply = await nextReply(worker, () => Atomics.load(position, 0), moleculeTimeoutMs);
        return 'outcomes' in reply ? reply.outcomes : [];
      } catch (error) {
        await worker.terminate();
        throw error;
      } finally {
        worker.unref();
      }
    },
    async close() {
      await worker.terminate();
    },
  };
}

/** The next message; fails when the thread ends or its position stands still for the limit. */
function nextReply(worker: Worker, positionOf: () => number | undefined, limitMs: number): Promise<ThreadReply> {
  const { promise, resolve, reject } = Promise.withResolvers<ThreadReply>();
  const at = () => {
    const index = positionOf();
    return index === NO_POSITION ? undefined : index;
  };
  let seen = { position: positionOf(), since: performance.now() };
  const watch = setInterval(() => {
    const position = positionOf();
    if (position !== seen.position) seen = { position, since: performance.now() };
    else if (performance.now() - seen.since > limitMs) reject(new ThreadLost(at(), true));
  }, limitMs / 4);
  const failed = (cause: unknown) => reject(new ThreadLost(at(), false, cause));
  worker.once('message', resolve).once('error', failed).once('exit', failed);
  return promise.finally(() => {
    clearInterval(watch);
    worker.off('message', resolve).off('error', failed).off('exit', failed);
  });
}
