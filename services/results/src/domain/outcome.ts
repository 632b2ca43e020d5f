/** What is wrong with a batch of results: which column, which row of it (from 0, where one row is to blame), and why. */
export interface Problem {
  column: string;
  row?: number | undefined;
  description: string;
}

/**
 * The confidence to keep: what the engine said; 1 when a task that always gives the same answer said nothing; null for
 * a search (it has poses) that did not measure how it converged.
 */
export function confidenceOf(reported: number | undefined, deterministic: boolean, hasPoses: boolean): number | null {
  return reported ?? (deterministic && !hasPoses ? 1 : null);
}
