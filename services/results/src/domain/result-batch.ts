import { problemOfMolBlock } from './mol-block.ts';
import type { Problem } from './outcome.ts';
import { scaleOf } from './score-units.ts';

/** Of one batch: bounds its transaction and its memory. */
export const MAX_ITEMS = 10_000;
export const MAX_POSES = 50_000;
const MAX_RESULT_DATA = 1024 * 1024;
const MAX_ERROR_CLASS = 63;
const MAX_ERROR_MESSAGE = 4000;

/** Items with a result, column by column: row i is at place i of each. Empty columns say nothing of any row. */
export interface Scored {
  itemNo: readonly number[];
  score: readonly number[];
  scoreUnits: string;
  /** −1 where unknown. */
  confidenceScore: readonly number[];
  resultData: readonly string[];
}

/** Items that failed. */
export interface Failed {
  itemNo: readonly number[];
  errorClass: readonly string[];
  errorMessage: readonly string[];
}

/** Poses of the scored items. Scores kcal/mol, RMSD ångström. */
export interface Poses {
  itemNo: readonly number[];
  replicate: readonly number[];
  poseRank: readonly number[];
  score: readonly number[];
  rawScore: readonly number[];
  rmsdLb: readonly number[];
  rmsdUb: readonly number[];
  /** Structures; empty texts, or an empty column, where there are none. */
  molBlock: readonly string[];
}

/** What one batch says. */
export interface ResultBatch {
  scored: Scored;
  failed: Failed;
  poses: Poses;
}

/**
 * What is wrong with a batch, the first problem only: nothing here may reach a table or, worse, the cache. Plain loops over
 * columns, since a batch has tens of thousands of rows. Whether the items are the execution's is for the database.
 */
export function problemOf({ scored, failed, poses }: ResultBatch, scoreUnits: string): Problem | undefined {
  const items = scored.itemNo.length + failed.itemNo.length;
  if (items < 1 || items > MAX_ITEMS) return { column: 'item_no', description: `a batch has 1–${MAX_ITEMS} items` };
  return (
    problemOfScored(scored, scoreUnits) ??
    problemOfFailed(failed) ??
    problemOfBoth(scored, failed) ??
    problemOfPoses(poses, scored, scoreUnits)
  );
}

/** A column that has neither as many rows as the items nor, where it may be left out, none. */
function unevenColumn(
  section: string,
  rows: number,
  columns: Readonly<Record<string, readonly unknown[]>>,
  optional: readonly string[] = [],
): Problem | undefined {
  for (const [name, column] of Object.entries(columns)) {
    if (column.length === rows || (column.length === 0 && optional.includes(name))) continue;
    return { column: `${section}.${name}`, description: `has ${column.length} rows, item_no has ${rows}` };
  }
  return undefined;
}

function notRising(section: string, itemNo: readonly number[]): Problem | undefined {
  for (let row = 0; row < itemNo.length; row += 1) {
    const before = row === 0 ? 0 : itemNo[row - 1]!;
    if (itemNo[row]! > before) continue;
    const description = itemNo[row] === before ? 'is given twice' : 'must rise from row to row, from 1';
    return { column: `${section}.item_no`, row, description };
  }
  return undefined;
}

function problemOfScored(scored: Scored, scoreUnits: string): Problem | undefined {
  const { itemNo, score, confidenceScore, resultData } = scored;
  const rows = itemNo.length;
  const wrong = (name: string, row: number | undefined, description: string): Problem => ({
    column: `scored.${name}`,
    row,
    description,
  });
  const columns = { score, confidence_score: confidenceScore, result_data: resultData };
  const optional = ['confidence_score', 'result_data', ...(scoreUnits === '' ? ['score'] : [])];
  const uneven = unevenColumn('scored', rows, columns, optional) ?? notRising('scored', itemNo);
  if (uneven !== undefined) return uneven;
  if (rows > 0 && scored.scoreUnits !== scoreUnits) {
    return wrong('score_units', undefined, `is '${scored.scoreUnits}', the task's is '${scoreUnits}'`);
  }
  if (scoreUnits === '' && score.length > 0) return wrong('score', 0, 'the task gives none');
  const { min, max } = scaleOf(scoreUnits);
  for (let row = 0; row < score.length; row += 1) {
    // Not a number is in no range.
    if (!(score[row]! >= min && score[row]! <= max)) {
      return wrong('score', row, `must be within ${min} … ${max} ${scoreUnits}, is ${score[row]}`);
    }
  }
  for (let row = 0; row < confidenceScore.length; row += 1) {
    const value = confidenceScore[row]!;
    if (!((value >= 0 && value <= 1) || value === -1)) return wrong('confidence_score', row, 'must be 0–1, or −1');
  }
  for (let row = 0; row < resultData.length; row += 1) {
    if (resultData[row]!.length > MAX_RESULT_DATA) return wrong('result_data', row, 'is longer than 1 MiB');
  }
  return undefined;
}

function problemOfFailed({ itemNo, errorClass, errorMessage }: Failed): Problem | undefined {
  const columns = { error_class: errorClass, error_message: errorMessage };
  const uneven = unevenColumn('failed', itemNo.length, columns) ?? notRising('failed', itemNo);
  if (uneven !== undefined) return uneven;
  for (let row = 0; row < itemNo.length; row += 1) {
    const wrong = (name: string, description: string): Problem => ({ column: `failed.${name}`, row, description });
    const kind = errorClass[row]!;
    if (kind === '' || kind.length > MAX_ERROR_CLASS) return wrong('error_class', `must be 1–${MAX_ERROR_CLASS} long`);
    if (errorMessage[row]!.length > MAX_ERROR_MESSAGE) {
      return wrong('error_message', `is longer than ${MAX_ERROR_MESSAGE}`);
    }
  }
  return undefined;
}

function problemOfBoth(scored: Scored, failed: Failed): Problem | undefined {
  if (scored.itemNo.length === 0 || failed.itemNo.length === 0) return undefined;
  const known = new Set(scored.itemNo);
  const row = failed.itemNo.findIndex((itemNo) => known.has(itemNo));
  return row < 0 ? undefined : { column: 'failed.item_no', row, description: 'has a result in the same batch' };
}

function problemOfPoses(poses: Poses, scored: Scored, scoreUnits: string): Problem | undefined {
  const { itemNo, replicate, poseRank, score, rawScore, rmsdLb, rmsdUb, molBlock } = poses;
  const rows = itemNo.length;
  if (rows > MAX_POSES) return { column: 'poses', description: `a batch has at most ${MAX_POSES} poses` };
  const columns = {
    replicate,
    pose_rank: poseRank,
    score,
    raw_score: rawScore,
    rmsd_lb: rmsdLb,
    rmsd_ub: rmsdUb,
    mol_block: molBlock,
  };
  const uneven = unevenColumn('poses', rows, columns, ['mol_block']);
  if (uneven !== undefined || rows === 0) return uneven;
  if (scoreUnits !== 'kcal/mol') {
    return { column: 'poses', description: `are of docking: the task's scores are in '${scoreUnits}', not kcal/mol` };
  }
  const { min, max } = scaleOf('kcal/mol');
  const isLength = (value: number): boolean => value >= 0 && value < Infinity;
  // Both rise, so one walk finds the item of every pose.
  let item = 0;
  for (let row = 0; row < rows; row += 1) {
    const wrong = (name: string, description: string): Problem => ({ column: `poses.${name}`, row, description });
    if (!(replicate[row]! >= 1)) return wrong('replicate', 'must be at least 1');
    if (!(poseRank[row]! >= 1)) return wrong('pose_rank', 'must be at least 1');
    if (!(score[row]! >= min && score[row]! <= max)) {
      return wrong('score', `must be within ${min} … ${max} kcal/mol, is ${score[row]}`);
    }
    if (!Number.isFinite(rawScore[row])) return wrong('raw_score', 'must be finite');
    if (!isLength(rmsdLb[row]!)) return wrong('rmsd_lb', 'must be finite and not negative');
    if (!isLength(rmsdUb[row]!)) return wrong('rmsd_ub', 'must be finite and not negative');
    const structure = molBlock[row] ?? '';
    const unfit = structure === '' ? undefined : problemOfMolBlock(structure);
    if (unfit !== undefined) return wrong('mol_block', unfit);
    const order = row === 0 ? 1 : orderOf(poses, row);
    if (order === 0) return wrong('pose_rank', 'is given twice for its item and replicate');
    if (order < 0) return wrong('pose_rank', 'rows must rise by item_no, replicate, pose_rank');
    while (item < scored.itemNo.length && scored.itemNo[item]! < itemNo[row]!) item += 1;
    if (scored.itemNo[item] !== itemNo[row]) return wrong('item_no', `${itemNo[row]} is not scored in this batch`);
  }
  return undefined;
}

/** How a pose follows the one before it: above 0 as it should, 0 when it is the same again. */
function orderOf({ itemNo, replicate, poseRank }: Poses, row: number): number {
  return (
    itemNo[row]! - itemNo[row - 1]! || replicate[row]! - replicate[row - 1]! || poseRank[row]! - poseRank[row - 1]!
  );
}
