import type { ScoredPose } from '../domain/vina-score.ts';

/** A program that runs tasks. Every adapter passes the same contract suite. */
export interface Engine {
  readonly name: 'rdkit' | 'vina';
  /** The task definitions it runs, by name. */
  readonly tasks: readonly string[];
  /** What the scores of a task are in, e.g. `kcal/mol`; empty when it gives none. Results refuses another unit than it expects. */
  scoreUnits(task: string): string;
  /** The engine's version: with its name, what a worker leases by and what every cache key holds. */
  version(): Promise<string>;
  /** Whether this machine can run it; if not, a sentence for the operator who wonders why. */
  available(): Promise<{ ok: true } | { ok: false; reason: string }>;
  /**
   * Runs a task: says exactly one outcome for each item, in any order, and awaits `emit` before it goes on, so that a slow
   * taker slows the engine. A molecule's failure is its outcome, never an exception.
   * @throws EngineError when the task as a whole cannot run; the signal's reason when it is aborted, and then nothing it
   * started is left running.
   */
  run(task: EngineTask, emit: Emit, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

export type Emit = (outcome: ItemOutcome) => void | Promise<void>;

/** A task as its parameters were hashed. */
export interface EngineTask {
  /** The task definition's name, e.g. `vina.dock`. */
  task: string;
  parameters: Readonly<Record<string, unknown>>;
  /** Artifacts' contents, by the parameter that names them. */
  artifacts: Readonly<Record<string, string>>;
  items: readonly EngineItem[];
  /** Cores it may use. The results do not depend on them. */
  cores: number;
}

/** One molecule: its place in the job's input, and its canonical SMILES. */
export interface EngineItem {
  itemNo: number;
  smiles: string;
  /** What is known of its first replicas, where an earlier task ran fewer of the same search: they need not run again. */
  prior?: PriorReplicas | undefined;
}

/** What an engine said of an item whose replicas are the first ones of another's. */
export interface PriorReplicas {
  resultData?: Readonly<Record<string, unknown>> | undefined;
  poses: readonly Pose[];
}

/** What an engine says of one molecule. */
export type ItemOutcome = ScoredItem | FailedItem;

export interface ScoredItem {
  itemNo: number;
  status: 'scored';
  /** In the task definition's unit; left out where the task gives none. */
  score?: number;
  /** A JSON object. */
  resultData: Record<string, unknown>;
  /** How far a search converged, 0 to 1; left out where unknown. Not a probability of binding. */
  confidenceScore?: number;
  poses?: Pose[];
}

export interface FailedItem {
  itemNo: number;
  status: 'failed';
  errorClass: ErrorClass;
  errorMessage: string;
}

/** A docked pose of one replica (counted from 1). */
export interface Pose extends ScoredPose {
  replicate: number;
  /** Its structure as an MDL mol block (V2000), where the engine has one. */
  molBlock?: string;
}

/** Why a molecule or a task failed; people retry failed items by these names. */
export type ErrorClass =
  | 'INVALID_MOLECULE'
  | 'INVALID_PARAMETER'
  | 'UNKNOWN_TASK'
  | 'UNSUPPORTED_LIGAND'
  | 'PREPARATION_FAILED'
  | 'IMPLAUSIBLE'
  | 'TIMEOUT'
  | 'ENGINE_FAILED';

/** A failure with its class: of one item when thrown inside an engine, of the whole task when it leaves `run`. */
export class EngineError extends Error {
  readonly errorClass: ErrorClass;

  constructor(errorClass: ErrorClass, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'EngineError';
    this.errorClass = errorClass;
  }
}

/** An item's outcome for the error that ended it. */
export function failedItem(itemNo: number, error: EngineError): FailedItem {
  return { itemNo, status: 'failed', errorClass: error.errorClass, errorMessage: error.message };
}
