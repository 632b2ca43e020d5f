import type { MessageInitShape } from '@bufbuild/protobuf';
import type { AppendResultsRequestSchema } from '@mad/proto/results';

/** What one execution of the ingest scenario sends. */
export const BATCHES = 20;
export const ITEMS_PER_BATCH = 200;
export const POSES_PER_ITEM = 5;
export const ITEMS = BATCHES * ITEMS_PER_BATCH;
export const SCORE_UNITS = 'kcal/mol';

/** A pose's score: every row of an execution has one of its own, so that none can stand for another. */
export const scoreOf = (itemNo: number, rank: number): number => -12 + itemNo / 1_000 + rank / 100_000;

/** The columns of one batch. */
export function batchOf(
  batch: number,
): Pick<MessageInitShape<typeof AppendResultsRequestSchema>, 'batch' | 'scored' | 'poses'> {
  const items = Array.from({ length: ITEMS_PER_BATCH }, (_, index) => (batch - 1) * ITEMS_PER_BATCH + index + 1);
  const poses = items.flatMap((itemNo) =>
    Array.from({ length: POSES_PER_ITEM }, (_, index) => ({ itemNo, rank: index + 1 })),
  );
  return {
    batch,
    scored: {
      itemNo: items,
      score: items.map((itemNo) => scoreOf(itemNo, 1)),
      scoreUnits: SCORE_UNITS,
      resultData: items.map((itemNo) => JSON.stringify({ affinity: scoreOf(itemNo, 1) })),
    },
    poses: {
      itemNo: poses.map(({ itemNo }) => itemNo),
      replicate: poses.map(() => 1),
      poseRank: poses.map(({ rank }) => rank),
      score: poses.map(({ itemNo, rank }) => scoreOf(itemNo, rank)),
      rawScore: poses.map(({ itemNo, rank }) => scoreOf(itemNo, rank) - 0.5),
      rmsdLb: poses.map(({ rank }) => rank / 3),
      rmsdUb: poses.map(({ rank }) => rank / 2),
    },
  };
}
