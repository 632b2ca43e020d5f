import type { JsonObject } from '@bufbuild/protobuf';
import { MINUTE_MS, SECOND_MS } from '@mad/process';
import type { WorkerContext } from './context.ts';
import type { ItemOutcome } from './engines/engine.ts';
import type { HeldTask } from './leased-task.ts';
import { patiently } from './patience.ts';

/** Outcomes go to results in batches: when this many wait … */
const BATCH_ITEMS = 200;
/** … or when the oldest has waited this long, so that slow engines lose little when they die. */
const BATCH_MS = SECOND_MS;
/** A batch that takes longer is sent again: heartbeats would keep a hanging call's lease alive for ever. */
const APPEND_TIMEOUT_MS = MINUTE_MS;

/**
 * Sends outcomes to results as the engine says them. Every call is one batch, repeated until it arrives: results replaces
 * an item that it has already. A slow results slows the engine, which awaits `add`.
 */
export class OutcomeSender {
  readonly #context: WorkerContext;
  readonly #task: HeldTask;
  #waiting: ItemOutcome[] = [];
  #since = 0;

  constructor(context: WorkerContext, task: HeldTask) {
    this.#context = context;
    this.#task = task;
  }

  async add(outcome: ItemOutcome): Promise<void> {
    if (this.#waiting.length === 0) this.#since = Date.now();
    this.#waiting.push(outcome);
    this.#task.itemsDone += 1;
    if (this.#waiting.length >= BATCH_ITEMS || Date.now() - this.#since >= BATCH_MS) await this.flush();
  }

  /** Sends what waits. */
  async flush(): Promise<void> {
    if (this.#waiting.length === 0) return;
    const outcomes = this.#waiting.map(messageOf);
    this.#waiting = [];
    const task = this.#task;
    await patiently(() => {
      const batch = (async function* () {
        yield { ...task.named, outcomes };
      })();
      return this.#context.executions.appendResults(batch, { signal: task.signal, timeoutMs: APPEND_TIMEOUT_MS });
    }, task.signal);
  }
}

function messageOf(outcome: ItemOutcome) {
  if (outcome.status === 'failed') {
    const { itemNo, errorClass, errorMessage } = outcome;
    return { itemNo, errorClass, errorMessage: errorMessage.slice(0, 4_000) };
  }
  const { itemNo, score, resultData, confidenceScore, poses } = outcome;
  return { itemNo, score, resultData: resultData as JsonObject, confidenceScore, poses: poses ?? [] };
}
