import type { VinaPose } from './vina-output.ts';

/** Vina's weight of a torsion in its entropic penalty (`--weight_rot`). */
const TORSION_WEIGHT = 0.05846;

/** Scores below this (kcal/mol) are no affinity of any molecule; the database refuses them as well. */
const LOWEST_PLAUSIBLE = -50;

// Printed energies have 3 decimals; a recomputed score may differ by the roundings of the three it is made of.
const PRINT_TOLERANCE = 0.003;

/** A pose with the affinity that counts beside the one that was printed; kcal/mol, lower is better. */
export interface ScoredPose {
  poseRank: number;
  score: number;
  rawScore: number;
  rmsdLb: number;
  rmsdUb: number;
}

/** One search's poses, best first, and the torsions Vina counted in the ligand (a multiple of one half). */
export interface ScoredPoses {
  torsions: number;
  poses: ScoredPose[];
}

/** Whether this version of Vina subtracts the wrong unbound energy (1.2.0 to 1.2.3: ccsb-scripps/AutoDock-Vina#81). */
export function needsCorrection(version: string): boolean {
  return /^1\.2\.[0-3]$/.test(version);
}

/**
 * Gives every pose its affinity. Vina prints (INTER + INTRA − UNBOUND) / (1 + 0.05846·N). Up to 1.2.3 UNBOUND is taken
 * from the worst pose kept, so that all affinities of a run are off by one constant, which depends on how many poses were
 * asked for. It should be the best pose's INTRA, which makes the best affinity INTER / (1 + 0.05846·N).
 * N is not the file's TORSDOF: Vina counts half a torsion for each end that is more than a methyl, so it is found from
 * what was printed.
 * @returns undefined when the numbers printed do not agree with each other.
 */
export function scorePoses(version: string, poses: readonly VinaPose[]): ScoredPoses | undefined {
  const [best] = poses;
  if (!best) return undefined;
  const torsions = torsionsOf(best);
  const divisor = 1 + TORSION_WEIGHT * torsions;
  const agrees = (pose: VinaPose) =>
    Math.abs((pose.inter + pose.intra - pose.unbound) / divisor - pose.raw) <= PRINT_TOLERANCE;
  if (!poses.every(agrees)) return undefined;
  const shift = needsCorrection(version) ? (best.unbound - best.intra) / divisor : 0;
  return {
    torsions,
    poses: poses.map((pose) => ({
      poseRank: pose.rank,
      score: round(shift === 0 ? pose.raw : (pose.inter + pose.intra - best.intra) / divisor),
      rawScore: pose.raw,
      rmsdLb: pose.rmsdLb,
      rmsdUb: pose.rmsdUb,
    })),
  };
}

/**
 * Whether a score can be an affinity: finite, negative and not absurd. Vina ends with exit code 0 and −0.000 where the
 * box misses the receptor, and with +10⁷ where the box is too small for the ligand.
 */
export function isPlausible(score: number): boolean {
  return Number.isFinite(score) && score < 0 && score >= LOWEST_PLAUSIBLE;
}

/** Solves the printed affinity for N and takes the nearest half; 0 where the affinity is too small to tell. */
function torsionsOf({ inter, intra, unbound, raw }: VinaPose): number {
  const exact = ((inter + intra - unbound) / raw - 1) / TORSION_WEIGHT;
  return Number.isFinite(exact) ? Math.max(0, Math.round(exact * 2) / 2) : 0;
}

function round(energy: number): number {
  return Math.round(energy * 1_000) / 1_000 + 0;
}
