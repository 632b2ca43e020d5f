import type { ChaosSystem } from './system.ts';

/** The parts of the table. */
export const SUITES = ['provisioner', 'results'] as const;
export type SuiteName = (typeof SUITES)[number];

/** What came of one scenario. */
export interface Outcome {
  kills: number;
  /** Databases, roles, objects at the servers that no row knows, and rows of what is not there; by the reconciler. */
  orphans?: number;
  /** What was acknowledged and is not there. */
  lost: number;
  /** What is there twice, or was never asked for. */
  doubled: number;
  /** Numbers missing in what must be without gap. */
  gaps?: number;
  /** Whatever else is not as it must be, as sentences. */
  problems: string[];
  /** What was seen besides, e.g. which step was killed how often. */
  notes: Record<string, unknown>;
}

/** What a scenario works with. */
export interface Chaos {
  system: ChaosSystem;
  /** Between 0 and 1; the same numbers for the same seed. */
  random: () => number;
  /** Tells the person who waits how far it is. */
  progress: (text: string) => void;
}

/** One row of the table. */
export interface Scenario {
  name: string;
  /** Its part of its suite's kills, beside the others' parts. */
  weight: number;
  /** Prepares, kills about so many times, waits for everything to end, counts. Throws what it cannot judge. */
  run(chaos: Chaos, kills: number): Promise<Outcome>;
}
