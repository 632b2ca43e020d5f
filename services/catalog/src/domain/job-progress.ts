/** Where a job may stand, as the database spells it. */
export const JOB_STATES = ['pending', 'queued', 'running', 'completed', 'failed', 'cancelled'] as const;

export type JobState = (typeof JOB_STATES)[number];

/** How a job's work items stand: requested is the sum of the others. */
export interface JobCounters {
  requested: bigint;
  cached: bigint;
  scored: bigint;
  failed: bigint;
  skipped: bigint;
  cancelled: bigint;
  pending: bigint;
}

/** How a job stands in its tenant, by the number of its last event. */
export interface JobProgress {
  state: JobState;
  counters: JobCounters;
  eventSeq: bigint;
  /** Why it failed, when it did. */
  detail: string;
  /** Core milliseconds: what its executions took, and what earlier results saved. */
  coreMs: bigint;
  savedCoreMs: bigint;
}

/** What catalog knows of a job. */
export interface KnownJob {
  state: JobState;
  eventSeq: bigint;
  cancelRequested: boolean;
}

/** Whether nothing about the job will change any more. */
export function isEnded(state: JobState): boolean {
  return state === 'completed' || state === 'failed' || state === 'cancelled';
}

/**
 * Whether what results tells is news. Tellings arrive late, twice and out of order: each is absolute and numbered, so an
 * older one says nothing, and an end is final.
 */
export function isNews(known: KnownJob, told: JobProgress): boolean {
  return !isEnded(known.state) && told.eventSeq > known.eventSeq;
}

/** Whether task executions of the job may enter the queue. */
export function mayQueue({ state, cancelRequested }: Pick<KnownJob, 'state' | 'cancelRequested'>): boolean {
  return !isEnded(state) && !cancelRequested;
}

/** What is wrong with counters, or undefined: every item is in exactly one place. */
export function counterFault(counters: JobCounters): string | undefined {
  const { requested, ...places } = counters;
  const negative = Object.entries(counters).find(([, count]) => count < 0n);
  if (negative) return `${negative[0]} is negative`;
  const sum = Object.values(places).reduce((total, count) => total + count, 0n);
  return sum === requested ? undefined : `requested is ${requested}, the others add up to ${sum}`;
}
