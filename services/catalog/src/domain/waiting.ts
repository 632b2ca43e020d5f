/** What a wait is estimated from: how the organization's last completed jobs went, in seconds; null without any. */
export interface Pace {
  /** From a job's admission to its end. */
  jobSeconds: number | null;
  /** From a job's being materialized to its end, for each of its tasks. */
  taskSeconds: number | null;
}

/**
 * Milliseconds until a job that is `position`th in the line for one of `places` places gets it, when jobs take as long as
 * the last ones did; undefined where nothing is known of that.
 */
export function jobWaitMs(position: number, places: number, { jobSeconds }: Pace): number | undefined {
  if (jobSeconds === null || places < 1) return undefined;
  return Math.round((position / places) * jobSeconds * 1000);
}

/** Milliseconds until the `position`th task is served, at the pace at which the organization's tasks ended lately. */
export function taskWaitMs(position: number, { taskSeconds }: Pace): number | undefined {
  return taskSeconds === null ? undefined : Math.round(position * taskSeconds * 1000);
}

/** "1 job is before it", "no job is before it". */
export function before(ahead: number, noun: string): string {
  if (ahead === 0) return `no ${noun} is before it`;
  return ahead === 1 ? `1 ${noun} is before it` : `${ahead} ${noun}s are before it`;
}
