import type { ItemError } from './work-item.ts';

/** Corrected affinities beyond this are no result of docking, kcal/mol. */
export const MAX_AFFINITY = 50;

/** As the proto says: the service checks these streams by hand. */
const MAX_ERROR_CLASS = 63;
const MAX_ERROR_MESSAGE = 4000;
const MAX_POSES = 1000;

/** A pose as an engine reports it. Scores kcal/mol, RMSD ångström. */
export interface ReportedPose {
  replicate: number;
  poseRank: number;
  score: number;
  rawScore: number;
  rmsdLb: number;
  rmsdUb: number;
}

/** What an engine says of one item. An empty `errorClass` means it did not fail. */
export interface ReportedOutcome extends ItemError {
  itemNo: number;
  score?: number;
  confidenceScore?: number;
  poses: readonly ReportedPose[];
}

/** A field that is wrong, by its path within the outcome. */
export interface Problem {
  field: string;
  description: string;
}

const isAffinity = (value: number): boolean => Math.abs(value) <= MAX_AFFINITY;

/**
 * What is wrong with an outcome, the first problem only: nothing here may reach a table or, worse, the cache. The
 * engine's own gates are stricter; these hold for every engine.
 */
export function problemOf(outcome: ReportedOutcome, scoreUnits: string): Problem | undefined {
  const { score, confidenceScore, poses, errorClass, errorMessage } = outcome;
  if (errorClass.length > MAX_ERROR_CLASS)
    return { field: 'error_class', description: `is longer than ${MAX_ERROR_CLASS}` };
  if (errorMessage.length > MAX_ERROR_MESSAGE) {
    return { field: 'error_message', description: `is longer than ${MAX_ERROR_MESSAGE}` };
  }
  if (poses.length > MAX_POSES) return { field: 'poses', description: `are more than ${MAX_POSES}` };
  if (errorClass !== '') {
    return score === undefined && poses.length === 0
      ? undefined
      : { field: 'error_class', description: 'an item that failed has neither score nor poses' };
  }
  if (score !== undefined && !Number.isFinite(score)) return { field: 'score', description: 'must be finite' };
  if (score === undefined && scoreUnits !== '') {
    return { field: 'score', description: `is required: the task's score is in ${scoreUnits}` };
  }
  if (score !== undefined && scoreUnits === 'kcal/mol' && !isAffinity(score)) {
    return { field: 'score', description: `must be within ±${MAX_AFFINITY} kcal/mol` };
  }
  if (confidenceScore !== undefined && !(confidenceScore >= 0 && confidenceScore <= 1)) {
    return { field: 'confidence_score', description: 'must be 0–1' };
  }
  return problemOfPoses(poses);
}

function problemOfPoses(poses: readonly ReportedPose[]): Problem | undefined {
  const seen = new Set<string>();
  for (const [index, pose] of poses.entries()) {
    const wrong = (field: string, description: string): Problem => ({ field: `poses[${index}].${field}`, description });
    if (!Number.isInteger(pose.replicate) || pose.replicate < 1) return wrong('replicate', 'must be at least 1');
    if (!Number.isInteger(pose.poseRank) || pose.poseRank < 1) return wrong('pose_rank', 'must be at least 1');
    if (!isAffinity(pose.score)) return wrong('score', `must be within ±${MAX_AFFINITY} kcal/mol`);
    if (!Number.isFinite(pose.rawScore)) return wrong('raw_score', 'must be finite');
    if (!(pose.rmsdLb >= 0 && pose.rmsdLb < Infinity)) return wrong('rmsd_lb', 'must be finite and not negative');
    if (!(pose.rmsdUb >= 0 && pose.rmsdUb < Infinity)) return wrong('rmsd_ub', 'must be finite and not negative');
    const key = `${pose.replicate}/${pose.poseRank}`;
    if (seen.has(key)) return wrong('pose_rank', 'is given twice');
    seen.add(key);
  }
  return undefined;
}

/**
 * The confidence to keep: what the engine said; 1 when a task that always gives the same answer said nothing; null for
 * a search (it has poses) that did not measure how it converged.
 */
export function confidenceOf(reported: number | undefined, deterministic: boolean, poses: number): number | null {
  return reported ?? (deterministic && poses === 0 ? 1 : null);
}
