import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

/** What a thread is asked: to compute everything registration keeps, or the similarity to a reference. */
export interface RdkitQuestion {
  smiles: string[];
  /** Undefined for registration. */
  reference: string | undefined;
}

/** RDKit in threads with nothing around it: no checks, no time limit, no results handed back. */
export interface RdkitFloor {
  /** Computes and forgets; returns how many molecules RDKit took. */
  run(question: RdkitQuestion): Promise<number>;
  close(): Promise<void>;
}

/** As many to a message as our own pool sends. */
const BATCH_SIZE = 64;

/** Starts the threads and waits until RDKit is ready in each. */
export async function openRdkitFloor(threads: number): Promise<RdkitFloor> {
  const workers = await Promise.all(
    Array.from({ length: threads }, async () => {
      const worker = new Worker(new URL('programs/rdkit-thread.ts', import.meta.url));
      await once(worker, 'message');
      return worker;
    }),
  );
  return {
    async run({ smiles, reference }) {
      let next = 0;
      let taken = 0;
      await Promise.all(
        workers.map(async (worker) => {
          while (next < smiles.length) {
            const batch = smiles.slice(next, (next += BATCH_SIZE));
            worker.postMessage({ smiles: batch, reference } satisfies RdkitQuestion, []);
            const [count] = (await once(worker, 'message')) as [number];
            taken += count;
          }
        }),
      );
      return taken;
    },
    async close() {
      await Promise.all(workers.map((worker) => worker.terminate()));
    },
  };
}
