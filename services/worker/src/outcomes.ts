import { Code, ConnectError } from '@connectrpc/connect';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { MINUTE_MS, SECOND_MS } from '@mad/process';
import type { AppendResultsRequestSchema } from '@mad/proto/results';
import { DEFAULT_READ_MAX_BYTES } from '@mad/rpc';
import type { WorkerContext } from './context.ts';
import type { ItemOutcome, Pose, ScoredItem } from './engines/engine.ts';
import type { HeldTask } from './leased-task.ts';
import { patiently } from './patience.ts';

/** Outcomes go to results in batches: when this many wait … */
const BATCH_ITEMS = 200;
/** … or this many poses of them … */
const BATCH_POSES = 20_000;
/** … or so many bytes, structures among them … */
const BATCH_BYTES = 1024 * 1024;
/** … or when the oldest has waited this long, so that slow engines lose little when they die. */
const BATCH_MS = SECOND_MS;
/** Results takes 4 MiB a message. What is around the outcomes (ids, the lease, lengths) has room beside them. */
const MOST_BYTES = DEFAULT_READ_MAX_BYTES - 64 * 1024;
/** A pose without its structure: five numbers, three places, a length; and an outcome without its texts. */
const POSE_BYTES = 64;
const OUTCOME_BYTES = 64;
const MAX_ERROR_MESSAGE = 4_000;
/** A batch that takes longer is sent again: heartbeats would keep a hanging call's lease alive for ever. */
const APPEND_TIMEOUT_MS = MINUTE_MS;
const UNKNOWN_CONFIDENCE = -1;

type Batch = Pick<MessageInitShape<typeof AppendResultsRequestSchema>, 'scored' | 'failed' | 'poses'>;

/** An outcome as it waits; the text of what the engine said is made once. */
interface Waiting {
  outcome: ItemOutcome;
  resultData: string;
  bytes: number;
}

/**
 * Sends outcomes to results as the engine says them. Every call is one numbered batch, repeated under its number until it
 * is known to be kept: results takes each number once, however often it comes. A slow results slows the engine, which
 * awaits `add`.
 */
export class OutcomeSender {
  readonly #context: WorkerContext;
  readonly #task: HeldTask;
  readonly #scoreUnits: string;
  #nextBatch: number;
  #waiting: Waiting[] = [];
  #poses = 0;
  #bytes = 0;
  #since = 0;

  /** `nextBatch` as results said when the execution started; `scoreUnits` is what the engine's scores are in. */
  constructor(context: WorkerContext, task: HeldTask, about: { nextBatch: number; scoreUnits: string }) {
    this.#context = context;
    this.#task = task;
    this.#nextBatch = about.nextBatch;
    this.#scoreUnits = about.scoreUnits;
  }

  async add(outcome: ItemOutcome): Promise<void> {
    const waiting = fitting(outcome);
    // A large outcome does not go with what waits.
    if (this.#bytes + waiting.bytes > 2 * BATCH_BYTES) await this.flush();
    if (this.#waiting.length === 0) this.#since = Date.now();
    this.#waiting.push(waiting);
    this.#poses += posesOf(waiting.outcome).length;
    this.#bytes += waiting.bytes;
    this.#task.itemsDone += 1;
    const full = this.#waiting.length >= BATCH_ITEMS || this.#poses >= BATCH_POSES || this.#bytes >= BATCH_BYTES;
    if (full || Date.now() - this.#since >= BATCH_MS) await this.flush();
  }

  /** Sends what waits. */
  async flush(): Promise<void> {
    if (this.#waiting.length === 0) return;
    const columns = columnsOf(this.#waiting, this.#scoreUnits);
    this.#waiting = [];
    this.#poses = 0;
    this.#bytes = 0;
    const task = this.#task;
    const batch = this.#nextBatch;
    const { nextBatch } = await patiently(() => {
      const stream = (async function* () {
        yield { ...task.named, batch, ...columns };
      })();
      return this.#context.executions.appendResults(stream, { signal: task.signal, timeoutMs: APPEND_TIMEOUT_MS });
    }, task.signal);
    // The end of a stream that was cut can look like its end: then the batch was never seen.
    if (nextBatch !== batch + 1) {
      throw new ConnectError(`results expects batch ${nextBatch} after batch ${batch}`, Code.FailedPrecondition);
    }
    this.#nextBatch = nextBatch;
  }
}

/** Outcomes as columns, in the order results asks for. */
function columnsOf(waiting: readonly Waiting[], scoreUnits: string): Batch {
  const inOrder = waiting.toSorted((a, b) => a.outcome.itemNo - b.outcome.itemNo);
  const scored = inOrder.flatMap(({ outcome, resultData }) =>
    outcome.status === 'scored' ? [{ ...outcome, resultData }] : [],
  );
  const failed = inOrder.flatMap(({ outcome }) => (outcome.status === 'failed' ? [outcome] : []));
  const poses = scored.flatMap(({ itemNo, poses: its = [] }) =>
    its.toSorted(byRank).map((pose) => ({ itemNo, ...pose })),
  );
  return {
    scored: {
      itemNo: scored.map(({ itemNo }) => itemNo),
      score: scoresOf(scored),
      scoreUnits,
      confidenceScore: scored.map(({ confidenceScore }) => confidenceScore ?? UNKNOWN_CONFIDENCE),
      resultData: scored.map(({ resultData }) => resultData),
    },
    failed: {
      itemNo: failed.map(({ itemNo }) => itemNo),
      errorClass: failed.map(({ errorClass }) => errorClass),
      errorMessage: failed.map(({ errorMessage }) => errorMessage),
    },
    poses: {
      itemNo: poses.map(({ itemNo }) => itemNo),
      replicate: poses.map(({ replicate }) => replicate),
      poseRank: poses.map(({ poseRank }) => poseRank),
      score: poses.map(({ score }) => score),
      rawScore: poses.map(({ rawScore }) => rawScore),
      rmsdLb: poses.map(({ rmsdLb }) => rmsdLb),
      rmsdUb: poses.map(({ rmsdUb }) => rmsdUb),
      molBlock: poses.some(({ molBlock }) => molBlock) ? poses.map(({ molBlock }) => molBlock ?? '') : [],
    },
  };
}

/** An outcome with the bytes it takes in a batch. One that takes more than a batch may is the failure of its item. */
function fitting(outcome: ItemOutcome): Waiting {
  const { itemNo } = outcome;
  if (outcome.status === 'failed') {
    const errorMessage = outcome.errorMessage.slice(0, MAX_ERROR_MESSAGE);
    return { outcome: { ...outcome, errorMessage }, resultData: '', bytes: OUTCOME_BYTES + textBytes(errorMessage) };
  }
  const resultData = JSON.stringify(outcome.resultData);
  const poses = posesOf(outcome);
  const structures = poses.reduce((sum, { molBlock = '' }) => sum + textBytes(molBlock), 0);
  const bytes = OUTCOME_BYTES + textBytes(resultData) + poses.length * POSE_BYTES + structures;
  if (bytes <= MOST_BYTES) return { outcome, resultData, bytes };
  const errorMessage = `what the engine said takes ${bytes} bytes with ${poses.length} poses, and ${MOST_BYTES} can be kept`;
  return fitting({ itemNo, status: 'failed', errorClass: 'ENGINE_FAILED', errorMessage });
}

function posesOf(outcome: ItemOutcome): readonly Pose[] {
  return outcome.status === 'scored' ? (outcome.poses ?? []) : [];
}

const textBytes = (text: string): number => Buffer.byteLength(text);

const byRank = (a: Pose, b: Pose): number => a.replicate - b.replicate || a.poseRank - b.poseRank;

/** All scores or, where the task gives none, no column. One that is missing among others is no number, and refused as such. */
function scoresOf(scored: readonly Pick<ScoredItem, 'score'>[]): number[] {
  return scored.some(({ score }) => score !== undefined) ? scored.map(({ score }) => score ?? Number.NaN) : [];
}
