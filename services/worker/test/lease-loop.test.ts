import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Code, ConnectError } from '@connectrpc/connect';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { MINUTE_MS, SECOND_MS, sleep, uuidv7 } from '@mad/process';
import { invalid, rpcError } from '@mad/rpc';
import type { WorkerConfig } from '../src/config.ts';
import type { WorkerContext } from '../src/context.ts';
import { EngineError, type Engine, type EngineTask } from '../src/engines/engine.ts';
import { leaseLoop, type LeaseLoop } from '../src/lease-loop.ts';
import { startWorker } from '../src/start.ts';
import { configFor, contextFor, planned, silent, startNeighbours, type Neighbours } from './neighbours.ts';

let neighbours: Neighbours;
let closers: (() => unknown)[];
beforeEach(async () => {
  neighbours = await startNeighbours();
  closers = [() => neighbours.close()];
});
afterEach(async () => {
  for (const close of closers.toReversed()) await close();
});

/** Waits until a condition holds; the test fails by its name when it never does. */
async function until(what: string, condition: () => boolean, withinMs = 5 * SECOND_MS): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`never: ${what}`);
    await sleep(5);
  }
}

/** An engine of the test's own: `run` is what it does; it notes what it was given and how many runs overlapped. */
function engineOf(run: Engine['run']) {
  const seen: EngineTask[] = [];
  const counts = { running: 0, most: 0 };
  const engine: Engine = {
    name: 'rdkit',
    tasks: ['rdkit.properties'],
    scoreUnits: () => '',
    version: async () => '1',
    available: async () => ({ ok: true }),
    close: async () => undefined,
    async run(task, emit, signal) {
      seen.push(task);
      counts.running += 1;
      counts.most = Math.max(counts.most, counts.running);
      try {
        await run(task, emit, signal);
      } finally {
        counts.running -= 1;
      }
    },
  };
  return { engine, seen, counts };
}

/** Says every item scored. */
const scoring: Engine['run'] = async ({ items }, emit) => {
  for (const { itemNo } of items) await emit({ itemNo, status: 'scored', score: itemNo, resultData: {} });
};

/** Works until it is stopped. */
const endless: Engine['run'] = async (_, __, signal) => sleep(MINUTE_MS, signal);

async function loopOf(engine: Engine, changes: Partial<WorkerConfig> = {}): Promise<LeaseLoop> {
  const context = await contextFor(await configFor(neighbours.address, changes), engine);
  const loop = leaseLoop(context);
  closers.push(
    () => context.close(),
    () => loop.close(),
  );
  return loop;
}

test('a worker leases for its engines, runs RDKit, and tells results each item’s outcome', async () => {
  const worker = await startWorker(await configFor(neighbours.address), { logger: silent });
  closers.push(() => worker.close());
  const [engine = ''] = worker.engines;
  expect(worker.engines).toEqual([expect.stringMatching(/^rdkit@20\d\d\.\d\d\.\d+$/)]);
  const parameters = { reference: 'CC(=O)Oc1ccccc1C(=O)O' };
  const task = planned({ engine, task: 'rdkit.similarity', parameters, smiles: [parameters.reference, 'C1CC'] });
  neighbours.waiting.push(task);
  await until('the task is finished', () => neighbours.finished.length === 1);
  expect(neighbours.leased[0]).toMatchObject({ worker: 'test-worker', engines: [engine], freeCores: 2 });
  expect(neighbours.started[0]).toMatchObject({ worker: 'test-worker', attempt: 1, leaseToken: 'lease 0' });
  expect(neighbours.outcomes()).toMatchObject([
    { itemNo: 1, score: 1, resultData: { tanimoto: 1 }, errorClass: '' },
    { itemNo: 2, errorClass: 'INVALID_MOLECULE', errorMessage: expect.stringContaining('ring') },
  ]);
  expect(neighbours.outcomes()[1]?.score).toBeUndefined();
  const { orgId, taskExecutionId } = task;
  expect(neighbours.finished[0]).toMatchObject({ orgId, taskExecutionId, attempt: 1, errorClass: '' });
});

describe('passing failures', () => {
  test('every call is repeated under the same attempt, and a batch arrives once', async () => {
    const unavailable = () => rpcError(Code.Unavailable, 'DATABASE_UNAVAILABLE', 'away', {}, { retryAfterMs: 1 });
    const exhausted = () => new ConnectError('full', Code.ResourceExhausted);
    const moved = () => rpcError(Code.Aborted, 'TENANT_MOVED', 'moved');
    neighbours.failures.leaseTasks.push(unavailable());
    neighbours.failures.startExecution.push(unavailable(), moved());
    neighbours.failures.appendResults.push(exhausted(), moved());
    neighbours.failures.finishExecution.push(moved(), unavailable());
    neighbours.waiting.push(planned({ attempt: 3, smiles: ['C', 'CC'] }));
    const { engine, seen } = engineOf(scoring);
    await loopOf(engine);
    await until('the task is finished', () => neighbours.finished.length === 1);
    expect(Object.values(neighbours.failures).flat()).toEqual([]);
    expect(seen).toHaveLength(1);
    expect(neighbours.outcomes().map(({ itemNo }) => itemNo)).toEqual([1, 2]);
    expect([...neighbours.started, ...neighbours.appended, ...neighbours.finished].map((r) => r.attempt)).toEqual([
      3, 3, 3,
    ]);
  });

  test('a batch whose answer was lost is sent again under its number, and the next one counts on', async () => {
    neighbours.keepBeforeFailing = true;
    neighbours.failures.appendResults.push(new ConnectError('cut', Code.Unavailable));
    neighbours.waiting.push(planned({ smiles: Array.from({ length: 450 }, (_, index) => 'C'.repeat(index + 1)) }));
    // Last item first: engines may speak in any order, batches are in order.
    const { engine } = engineOf(async ({ items }, emit) => {
      for (const { itemNo } of items.toReversed()) await emit({ itemNo, status: 'scored', resultData: {} });
    });
    await loopOf(engine);
    await until('the task is finished', () => neighbours.finished.length === 1);
    expect(neighbours.batchNumbers).toEqual([1, 1, 2, 3]);
    expect(neighbours.appended.map(({ scored }) => scored?.itemNo.length)).toEqual([200, 200, 50]);
    for (const { scored } of neighbours.appended) {
      expect(scored?.itemNo).toEqual(scored?.itemNo.toSorted((a, b) => a - b));
    }
    expect(new Set(neighbours.outcomes().map(({ itemNo }) => itemNo)).size).toBe(450);
  });

  test('what results refuses of an engine fails the task, in results’ words, and is not tried for ever', async () => {
    neighbours.failures.appendResults.push(invalid('batch 1, row 1: scored.score', 'must be within 0 … 1 tanimoto'));
    neighbours.waiting.push(planned());
    await loopOf(engineOf(scoring).engine);
    await until('the task is finished', () => neighbours.finished.length === 1);
    expect(neighbours.finished[0]).toMatchObject({
      errorClass: 'ENGINE_FAILED',
      errorMessage: expect.stringContaining('batch 1, row 1: scored.score'),
    });
  });

  test('a lost lease is not repeated: the engine stops, nothing is finished or given back', async () => {
    neighbours.failures.appendResults.push(rpcError(Code.Aborted, 'LEASE_LOST', 'an older attempt'));
    neighbours.waiting.push(planned());
    const { engine, counts } = engineOf(scoring);
    await loopOf(engine);
    await until('the engine has run', () => counts.most === 1 && counts.running === 0);
    await sleep(300);
    expect([neighbours.appended, neighbours.finished, neighbours.returned]).toEqual([[], [], []]);
  });

  test('a suspended organization’s lease is given back, not to be leased again at once', async () => {
    neighbours.failures.startExecution.push(rpcError(Code.FailedPrecondition, 'TENANT_SUSPENDED', 'suspended'));
    const task = planned();
    neighbours.waiting.push(task);
    await loopOf(engineOf(scoring).engine);
    await until('the lease is given back', () => neighbours.returned.length === 1);
    expect(neighbours.returned[0]).toMatchObject({ taskExecutionId: task.taskExecutionId, attempt: 1 });
    expect(neighbours.returned[0]?.delayMs).toBeGreaterThanOrEqual(SECOND_MS);
    expect(neighbours.finished).toEqual([]);
  });
});

describe('heartbeats', () => {
  test('tell the progress, and hand the renewed lease to later calls', async () => {
    const { engine } = engineOf(async (_, emit, signal) => {
      await emit({ itemNo: 1, status: 'scored', resultData: {} });
      await sleep(250, signal);
    });
    neighbours.waiting.push(planned());
    await loopOf(engine);
    await until('the task is finished', () => neighbours.finished.length === 1);
    expect(neighbours.heartbeats.map(({ itemsDone }) => itemsDone)).toContain(1);
    expect(neighbours.finished[0]?.leaseToken).toMatch(/^lease [1-9]/);
  });

  test('a cancelled task is stopped within a heartbeat and neither finished nor given back', async () => {
    const { engine, counts } = engineOf(endless);
    const task = planned();
    neighbours.waiting.push(task);
    await loopOf(engine);
    await until('the task runs', () => counts.running === 1);
    neighbours.stop.add(task.taskExecutionId);
    await until('the task has stopped', () => counts.running === 0, SECOND_MS);
    await sleep(100);
    expect([neighbours.finished, neighbours.returned]).toEqual([[], []]);
  });

  test('a worker that catalog cannot hear stops its task when the lease ends', async () => {
    const { engine, counts } = engineOf(endless);
    neighbours.failures.heartbeatTasks.push(
      ...Array.from({ length: 100 }, () => new ConnectError('away', Code.Unavailable)),
    );
    neighbours.waiting.push(planned({ leaseMs: 400 }));
    await loopOf(engine);
    await until('the task runs', () => counts.running === 1);
    await until('the task has stopped', () => counts.running === 0, 2 * SECOND_MS);
    expect(neighbours.finished).toEqual([]);
  });
});

describe('several tasks', () => {
  test('run at once, as many as cores and memory allow, until all are done', async () => {
    const { engine, counts } = engineOf(async (task, emit, signal) => {
      await sleep(60, signal);
      await scoring(task, emit, signal);
    });
    for (let i = 0; i < 7; i += 1) neighbours.waiting.push(planned({ memoryMb: 400 }));
    await loopOf(engine, { resources: { cores: 4, memoryMb: 1_000 } });
    await until('all are finished', () => neighbours.finished.length === 7);
    expect(counts.most).toBe(2);
    expect(neighbours.returned).toEqual([]);
    for (const { freeCores, freeMemoryMb } of neighbours.leased) {
      expect(freeCores).toBeGreaterThanOrEqual(1);
      expect(freeMemoryMb).toBeGreaterThanOrEqual(1);
    }
  });

  test('what does not fit is given back at once, and what fits runs', async () => {
    neighbours.overlease = true;
    const { engine, counts } = engineOf(endless);
    const big = planned({ memoryMb: 5_000 });
    const small = [planned(), planned()];
    neighbours.waiting.push(big, ...small);
    await loopOf(engine);
    await until('the big one is given back', () => neighbours.returned.length === 1);
    await until('the small ones run', () => counts.running === 2);
    expect(neighbours.returned).toEqual([{ taskExecutionId: big.taskExecutionId, attempt: 1, delayMs: 0 }]);
  });
});

describe('closing', () => {
  test('stops the engine and gives the lease back, uncounted', async () => {
    const { engine, counts } = engineOf(endless);
    const task = planned({ attempt: 2 });
    neighbours.waiting.push(task);
    const loop = await loopOf(engine);
    await until('the task runs', () => counts.running === 1);
    await loop.close();
    expect(counts.running).toBe(0);
    expect(neighbours.returned).toEqual([{ taskExecutionId: task.taskExecutionId, attempt: 2, delayMs: 0 }]);
    expect(neighbours.finished).toEqual([]);
  });

  test('a task that is leased in the moment of closing is given back, not begun', async () => {
    const { engine, seen } = engineOf(endless);
    const context = await contextFor(await configFor(neighbours.address), engine);
    closers.push(() => context.close());
    const lease = {
      ...planned(),
      jobId: uuidv7(),
      leaseToken: 'lease 0',
      leaseExpireTime: timestampFromMs(Date.now() + MINUTE_MS),
    };
    let closing: Promise<void> | undefined;
    const leaseTasks = async () => {
      await sleep(1);
      closing = loop.close();
      return { tasks: [lease] };
    };
    const queue = { ...context.queue, leaseTasks } as unknown as WorkerContext['queue'];
    const loop = leaseLoop({ ...context, queue });
    await until('the lease is given back', () => neighbours.returned.length === 1);
    await closing;
    expect(neighbours.returned).toEqual([{ taskExecutionId: lease.taskExecutionId, attempt: 1, delayMs: 0 }]);
    expect(seen).toEqual([]);
  });
});

describe('what a task is run with', () => {
  const receptor = 'the receptor';
  const artifact = (content: string) => {
    const artifactId = uuidv7();
    neighbours.contents.set(artifactId, content);
    return { parameter: 'receptor', artifactId, sha256: createHash('sha256').update(receptor).digest('hex') };
  };

  test('is exactly what results said: parameters, items, and artifacts by their content', async () => {
    const { engine, seen } = engineOf(scoring);
    neighbours.waiting.push(
      planned({ parameters: { seed: 42 }, smiles: ['C', 'CC'], artifacts: [artifact(receptor)] }),
    );
    await loopOf(engine);
    await until('the task is finished', () => neighbours.finished.length === 1);
    expect(seen[0]).toMatchObject({
      parameters: { seed: 42 },
      artifacts: { receptor },
      items: [
        { itemNo: 1, smiles: 'C' },
        { itemNo: 2, smiles: 'CC' },
      ],
      cores: 1,
    });
  });

  test('an artifact that is not what was hashed is never run: the task fails', async () => {
    const { engine, seen } = engineOf(scoring);
    neighbours.waiting.push(planned({ artifacts: [artifact('another receptor')] }));
    await loopOf(engine);
    await until('the task is finished', () => neighbours.finished.length === 1);
    expect(neighbours.finished[0]).toMatchObject({
      errorClass: 'ENGINE_FAILED',
      errorMessage: expect.stringContaining('receptor'),
    });
    expect(seen).toEqual([]);
  });

  test('an execution that finished before is not run again', async () => {
    const { engine, seen } = engineOf(scoring);
    neighbours.waiting.push(planned({ alreadyFinished: true }));
    await loopOf(engine);
    await until('it was asked for', () => neighbours.started.length === 1);
    await sleep(100);
    expect([seen, neighbours.finished, neighbours.returned]).toEqual([[], [], []]);
  });
});

test.each([
  ['IMPLAUSIBLE', new EngineError('IMPLAUSIBLE', 'no atom of the receptor lies in the box')],
  ['ENGINE_FAILED', new Error('a bug')],
])(
  'an engine that fails as a whole fails the execution as %s, and items keep the outcomes they have',
  async (errorClass, thrown) => {
    const { engine } = engineOf(async (_, emit) => {
      await emit({ itemNo: 1, status: 'scored', resultData: {} });
      throw thrown;
    });
    neighbours.waiting.push(planned({ smiles: ['C', 'CC'] }));
    await loopOf(engine);
    await until('the task is finished', () => neighbours.finished.length === 1);
    expect(neighbours.outcomes().map(({ itemNo }) => itemNo)).toEqual([1]);
    expect(neighbours.finished[0]).toMatchObject({ errorClass, errorMessage: thrown.message });
  },
);
