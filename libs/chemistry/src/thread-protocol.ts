import type { Outcome, QuestionKind, Questions } from './molecule.ts';

/** One message to a thread: the same question about some SMILES. */
export interface ThreadRequest<K extends QuestionKind = QuestionKind> {
  kind: K;
  with: Questions[K]['with'];
  smiles: string[];
}

/** What a thread says: first its RDKit version, then for each request the outcomes in order. */
export type ThreadReply = { version: string } | { outcomes: Outcome<QuestionKind>[] };

/** What a thread is given: one shared integer that says which molecule of its request it is working on. */
export interface ThreadData {
  position: SharedArrayBuffer;
}

/** The position of a thread that is working on no molecule (starting, or done). */
export const NO_POSITION = -1;
