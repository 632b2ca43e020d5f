import type { Library } from './library.ts';
import type { BenchSystem } from './system.ts';

/** What is promised of a line: a bound of its value, or of its ratio to the floor. */
export type Target = { of: 'value' | 'ratio' } & ({ atLeast: number } | { atMost: number });

/** One measured thing. */
export interface Line {
  name: string;
  /** Of value and floor, e.g. `ms`, `calls/s`. */
  unit: string;
  /** Absent where a number is told and nothing was promised. */
  target?: Target;
  /** By round. */
  ours: number[];
  /** By round, measured in turn with ours; absent where there is nothing to compare with. */
  floor?: number[];
  /** What else was seen, kept with the result. */
  notes?: Readonly<Record<string, unknown>>;
}

/** What a row may use. */
export interface Bench {
  /** 1, or less for a look that takes seconds and proves nothing. */
  scale: number;
  /** How long a soak lasts. */
  minutes: number;
  /** The services and their Postgres server, started by the first row that asks. */
  system(): Promise<BenchSystem>;
  /** The molecules to work on. */
  library(): Promise<Library>;
  /** Tells the person who waits how far it is. */
  progress(text: string): void;
}

/** One entry of the bench. */
export interface Row {
  /** As in `make bench ONLY=<name>`. */
  name: string;
  /** It takes so long that it runs only when it is named: `make soak`. */
  soak?: true;
  /** Prepares, measures, cleans up after itself. */
  run(bench: Bench): Promise<Line[]>;
}

/** A number of rounds or things at the bench's scale, never under `least`. */
export function scaled({ scale }: Bench, full: number, least: number): number {
  return Math.max(least, Math.round(full * scale));
}
