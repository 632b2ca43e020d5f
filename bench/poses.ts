import type { MessageInitShape } from '@bufbuild/protobuf';
import type { AppendResultsRequestSchema } from '@mad/proto/results';

/** Full batches: what a transaction costs is shared by as many rows as one may have. */
export const ITEMS_PER_BATCH = 2_500;
export const POSES_PER_ITEM = 20;
/** The task whose poses these are. */
export const PLAN = {
  taskId: 'dock',
  task: 'vina.dock',
  engine: 'vina@1.2.3',
  scoreUnits: 'kcal/mol',
  lowerIsBetter: true,
};

/** Three decimals, as docking gives them. */
export const scoreOf = (itemNo: number, rank: number): number =>
  Math.round((-6 - 3 * Math.sin(itemNo) + rank / 10) * 1000) / 1000;

/** One batch of poses as a worker's columns: the items after `before`. */
export function dockingBatch(
  batch: number,
  before: number,
): Pick<MessageInitShape<typeof AppendResultsRequestSchema>, 'batch' | 'scored' | 'poses'> {
  const items = Array.from({ length: ITEMS_PER_BATCH }, (_, index) => before + index + 1);
  const poses = items.flatMap((itemNo) =>
    Array.from({ length: POSES_PER_ITEM }, (_, index) => ({ itemNo, rank: index + 1 })),
  );
  const column = (value: (itemNo: number, rank: number) => number): number[] =>
    poses.map(({ itemNo, rank }) => value(itemNo, rank));
  return {
    batch,
    scored: {
      itemNo: items,
      score: items.map((itemNo) => scoreOf(itemNo, 1)),
      scoreUnits: PLAN.scoreUnits,
      resultData: items.map((itemNo) => JSON.stringify({ affinity: scoreOf(itemNo, 1), torsions: 4 })),
    },
    poses: {
      itemNo: column((itemNo) => itemNo),
      replicate: column(() => 1),
      poseRank: column((_, rank) => rank),
      score: column(scoreOf),
      rawScore: column((itemNo, rank) => scoreOf(itemNo, rank) - 0.5),
      rmsdLb: column((_, rank) => rank / 3),
      rmsdUb: column((_, rank) => rank / 2),
    },
  };
}
