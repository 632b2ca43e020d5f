import { describe, expect } from '@jest/globals';
import type { test } from '@jest/globals';
import type { Engine, EngineItem, EngineTask, ItemOutcome } from '../../src/engines/engine.ts';
import { EngineError } from '../../src/engines/engine.ts';

/** What the contract needs to know of an adapter: a task it runs, with two good molecules and one it must fail. */
export interface Specimen {
  engine: () => Engine;
  task: () => Omit<EngineTask, 'items' | 'cores'>;
  good: [string, string];
  bad: { smiles: string; errorClass: string };
  /** Parameters the task cannot run with, and the name of the one at fault. */
  badParameters: { parameters: Record<string, unknown>; names: string };
  timeoutMs: number;
}

const NEVER = new AbortController().signal;

/** Runs a task and collects its outcomes. */
export async function collect(engine: Engine, task: EngineTask, signal = NEVER): Promise<ItemOutcome[]> {
  const outcomes: ItemOutcome[] = [];
  await engine.run(task, (outcome) => void outcomes.push(outcome), signal);
  return outcomes.toSorted((a, b) => a.itemNo - b.itemNo);
}

/** The contract of the Engine port: every adapter passes all of it. */
export function engineContract(name: string, specimen: Specimen, run: typeof test | typeof test.skip): void {
  const { engine, good, bad, badParameters, timeoutMs } = specimen;
  const taskOf = (smiles: string[], changes: Partial<EngineTask> = {}): EngineTask => ({
    ...specimen.task(),
    cores: 1,
    items: smiles.map((text, index): EngineItem => ({ itemNo: index + 1, smiles: text })),
    ...changes,
  });

  describe(`the engine contract: ${name}`, () => {
    run('it names its tasks and its version', async () => {
      expect(engine().tasks).toContain(specimen.task().task);
      await expect(engine().version()).resolves.toMatch(/^\d+\.\d+\.\d+$/);
      await expect(engine().available()).resolves.toEqual({ ok: true });
    });

    run(
      'it says one outcome for each item, a bad molecule is only its own failure, and a repeat says the same',
      async () => {
        const task = taskOf([good[0], bad.smiles, good[1]]);
        const outcomes = await collect(engine(), task);
        expect(outcomes.map(({ itemNo, status }) => [itemNo, status])).toEqual([
          [1, 'scored'],
          [2, 'failed'],
          [3, 'scored'],
        ]);
        expect(outcomes[1]).toMatchObject({ errorClass: bad.errorClass, errorMessage: expect.stringMatching(/\w/) });
        expect(JSON.parse(JSON.stringify(outcomes))).toEqual(outcomes);
        await expect(collect(engine(), task)).resolves.toEqual(outcomes);
      },
      timeoutMs,
    );

    run('a task without items says nothing', async () => {
      await expect(collect(engine(), taskOf([]))).resolves.toEqual([]);
    });

    run('it waits for each outcome to be taken', async () => {
      let taking = false;
      const take = async () => {
        expect(taking).toBe(false);
        taking = true;
        await new Promise((resolve) => setTimeout(resolve, 20));
        taking = false;
      };
      await engine().run(taskOf([bad.smiles, bad.smiles, bad.smiles]), take, NEVER);
      expect(taking).toBe(false);
    });

    run('what the taker throws ends the run', async () => {
      const refuse = () => Promise.reject(new Error('the lease is lost'));
      await expect(engine().run(taskOf([bad.smiles]), refuse, NEVER)).rejects.toThrow('the lease is lost');
    });

    run('it refuses a task it does not know', async () => {
      const error = await collect(engine(), taskOf([good[0]], { task: 'nobody.knows' })).catch((e: unknown) => e);
      expect(error).toBeInstanceOf(EngineError);
      expect(error).toMatchObject({ errorClass: 'UNKNOWN_TASK', message: expect.stringContaining('nobody.knows') });
    });

    run('it refuses parameters it cannot run, naming the one', async () => {
      const { parameters, names } = badParameters;
      const error = await collect(engine(), taskOf([good[0]], { parameters })).catch((e: unknown) => e);
      expect(error).toMatchObject({ errorClass: 'INVALID_PARAMETER', message: expect.stringContaining(names) });
    });

    run('aborted beforehand it does nothing', async () => {
      const aborted = AbortSignal.abort(new Error('cancelled'));
      await expect(collect(engine(), taskOf([good[0]]), aborted)).rejects.toThrow('cancelled');
    });

    run(
      'aborted on the way it ends with the reason and says nothing more',
      async () => {
        const controller = new AbortController();
        const outcomes: ItemOutcome[] = [];
        const many = Array.from({ length: 200 }, (_, index) => good[index % 2]!);
        const started = performance.now();
        const running = engine().run(
          taskOf([bad.smiles, ...many]),
          (outcome) => {
            outcomes.push(outcome);
            setTimeout(() => controller.abort(new Error('cancelled')), 5);
          },
          controller.signal,
        );
        await expect(running).rejects.toThrow('cancelled');
        const said = outcomes.length;
        expect(said).toBeLessThan(many.length);
        expect(performance.now() - started).toBeLessThan(timeoutMs / 2);
        await new Promise((resolve) => setTimeout(resolve, 50));
        expect(outcomes).toHaveLength(said);
      },
      timeoutMs,
    );
  });
}
