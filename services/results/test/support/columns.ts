import type { MessageInitShape } from '@bufbuild/protobuf';
import type { AppendResultsRequestSchema } from '@mad/proto/results';

/** One pose as a test writes it down. */
export interface PoseRow {
  replicate: number;
  poseRank: number;
  score: number;
  rawScore: number;
  rmsdLb: number;
  rmsdUb: number;
  molBlock?: string;
}

/** One item's outcome as a test writes it down. */
export interface Outcome {
  itemNo: number;
  score?: number | undefined;
  resultData?: object;
  confidenceScore?: number;
  poses?: PoseRow[];
  errorClass?: string;
  errorMessage?: string;
}

export type Columns = Pick<MessageInitShape<typeof AppendResultsRequestSchema>, 'scored' | 'failed' | 'poses'>;

/** Outcomes as the columns of one batch, rows in the order given. */
export function columnsOf(outcomes: readonly Outcome[], scoreUnits: string): Columns {
  const scored = outcomes.filter(({ errorClass = '' }) => errorClass === '');
  const failed = outcomes.filter(({ errorClass = '' }) => errorClass !== '');
  const poses = scored.flatMap(({ itemNo, poses: its = [] }) => its.map((pose) => ({ itemNo, ...pose })));
  return {
    scored: {
      itemNo: scored.map(({ itemNo }) => itemNo),
      score: scored.flatMap(({ score }) => (score === undefined ? [] : [score])),
      scoreUnits,
      confidenceScore: scored.map(({ confidenceScore }) => confidenceScore ?? -1),
      resultData: scored.map(({ resultData }) => (resultData === undefined ? '' : JSON.stringify(resultData))),
    },
    failed: {
      itemNo: failed.map(({ itemNo }) => itemNo),
      errorClass: failed.map(({ errorClass }) => errorClass!),
      errorMessage: failed.map(({ errorMessage = '' }) => errorMessage),
    },
    poses: {
      itemNo: poses.map(({ itemNo }) => itemNo),
      replicate: poses.map(({ replicate }) => replicate),
      poseRank: poses.map(({ poseRank }) => poseRank),
      score: poses.map(({ score }) => score),
      rawScore: poses.map(({ rawScore }) => rawScore),
      rmsdLb: poses.map(({ rmsdLb }) => rmsdLb),
      rmsdUb: poses.map(({ rmsdUb }) => rmsdUb),
      molBlock: poses.map(({ molBlock = '' }) => molBlock),
    },
  };
}
