import type { PoseAtom } from './vina-output.ts';

/** Replicas below which nothing is said about convergence. */
export const LEAST_REPLICAS = 3;

/** Two top poses closer than this (Å) are the same answer. */
const SAME_POSE = 2;

/** A replica's best pose. */
export interface TopPose {
  score: number;
  atoms: readonly PoseAtom[];
}

/**
 * How far the search converged: the fraction of replicas whose top pose lies within 2 Å of the best-scored one's, that
 * one included. It says that the search finds the same answer again, not that the molecule binds.
 * @returns null below three replicas.
 */
export function convergence(replicas: readonly TopPose[]): number | null {
  if (replicas.length < LEAST_REPLICAS) return null;
  const best = replicas.reduce((a, b) => (b.score < a.score ? b : a));
  const agreeing = replicas.filter((replica) => tolerantRmsd(best.atoms, replica.atoms) <= SAME_POSE);
  return agreeing.length / replicas.length;
}

/**
 * The distance of two poses of one ligand in Å, blind to which of several like atoms is which, so that a symmetric
 * ligand turned onto itself has not moved: each heavy atom is compared with the nearest of its element in the other
 * pose, both ways, and the larger root mean square counts (what Vina prints as the lower bound).
 */
export function tolerantRmsd(a: readonly PoseAtom[], b: readonly PoseAtom[]): number {
  const [heavyA, heavyB] = [heavyAtoms(a), heavyAtoms(b)];
  return Math.max(oneWay(heavyA, heavyB), oneWay(heavyB, heavyA));
}

function oneWay(from: readonly PoseAtom[], to: readonly PoseAtom[]): number {
  if (from.length === 0) return 0;
  let sum = 0;
  for (const atom of from) {
    const like = to.filter((other) => elementOf(other.type) === elementOf(atom.type));
    sum += Math.min(...like.map((other) => squaredDistance(atom, other)));
  }
  return Math.sqrt(sum / from.length);
}

/** All atoms but hydrogens: what poses are compared by. */
export function heavyAtoms(atoms: readonly PoseAtom[]): PoseAtom[] {
  return atoms.filter(({ type }) => elementOf(type) !== 'H');
}

/** The element of an AutoDock type: A is aromatic carbon; a second capital (OA, HD) tells a role, not an element. */
function elementOf(type: string): string {
  return type === 'A' ? 'C' : type.replace(/^([A-Z])[A-Z]$/, '$1');
}

function squaredDistance({ position: a }: PoseAtom, { position: b }: PoseAtom): number {
  return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2;
}
