import { heavyAtoms } from './convergence.ts';
import type { PoseAtom, VinaPose } from './vina-output.ts';
import type { ScoredPose, ScoredPoses } from './vina-score.ts';

/** One search of a molecule's. */
export interface Replica extends ScoredPoses {
  /** From 1. */
  replicate: number;
  seed: number;
  top: Pick<VinaPose, 'raw' | 'atoms'>;
  /** The structure of each pose. */
  molBlocks: readonly string[];
}

/** What was said of replicas that ran before. */
interface Prior {
  resultData?: Readonly<Record<string, unknown>> | undefined;
  poses: readonly (ScoredPose & { replicate: number; molBlock?: string | undefined })[];
}

/** A pose's heavy atoms as text, "C 1.363 -1.742 2.94 OA …" in Å: later replicas are compared with it. */
export function atomsText(atoms: readonly PoseAtom[]): string {
  return heavyAtoms(atoms)
    .map(({ type, position }) => [type, ...position].join(' '))
    .join(' ');
}

/** The atoms of such a text; undefined when it is none. */
export function atomsOf(text: unknown): PoseAtom[] | undefined {
  if (typeof text !== 'string' || text === '') return undefined;
  const words = text.split(' ');
  if (words.length % 4 !== 0) return undefined;
  const atoms: PoseAtom[] = [];
  for (let at = 0; at < words.length; at += 4) {
    const position = words.slice(at + 1, at + 4).map(Number) as [number, number, number];
    if (words[at] === '' || !position.every(Number.isFinite)) return undefined;
    atoms.push({ type: words[at]!, position });
  }
  return atoms;
}

/**
 * The first replicas of a search with these seeds as an earlier one left them; none where something of them, a structure
 * say, is missing or their seeds are others: then all of it runs.
 */
export function knownReplicas(prior: Prior | undefined, seeds: readonly number[]): Replica[] {
  const said = prior?.resultData?.['replicas'];
  const torsions = prior?.resultData?.['torsions'];
  if (prior === undefined || !Array.isArray(said) || said.length > seeds.length || typeof torsions !== 'number')
    return [];
  const replicas: Replica[] = [];
  for (const [index, one] of (said as Readonly<Record<string, unknown>>[]).entries()) {
    const seed = seeds[index]!;
    const atoms = atomsOf(one['top']);
    const ranked = prior.poses
      .filter(({ replicate }) => replicate === index + 1)
      .sort((a, b) => a.poseRank - b.poseRank);
    const [best] = ranked;
    const molBlocks = ranked.map(({ molBlock = '' }) => molBlock);
    if (one['seed'] !== seed || atoms === undefined || best?.poseRank !== 1 || molBlocks.includes('')) return [];
    const poses = ranked.map(({ poseRank, score, rawScore, rmsdLb, rmsdUb }) => ({
      poseRank,
      score,
      rawScore,
      rmsdLb,
      rmsdUb,
    }));
    replicas.push({ replicate: index + 1, seed, torsions, poses, top: { raw: best.rawScore, atoms }, molBlocks });
  }
  return replicas;
}
