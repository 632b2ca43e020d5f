import { Code, ConnectError } from '@connectrpc/connect';
import { backoff, sleep } from '@mad/process';
import { JobService, JobState, type Job, type JobCounters, type JobWaiting } from '@mad/proto/catalog';
import { JobRunService } from '@mad/proto/results';
import { reasonOf } from '@mad/rpc';
import type { Signed } from './session.ts';

/** Where a watched job stands. */
export interface Standing {
  state: JobState;
  counters: JobCounters;
  /** What it waits for; undefined when for nothing, or when that was not asked. */
  waiting?: JobWaiting;
}

const ENDED = new Set([JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED]);
const RETRY = { baseMs: 100, maxMs: 2000 };

/**
 * Follows a job's event stream to its end and answers catalog's record of it. A cut stream goes on after the last event
 * seen; a job that is not materialized yet is asked for again.
 */
export async function watchJob(
  { api, orgId }: Signed,
  jobId: string,
  onStanding: (standing: Standing) => void,
): Promise<Job> {
  let afterSeq = 0n;
  for (let attempt = 0; ; attempt += 1) {
    const { job, waiting } = await api.client(JobService).getJob({ orgId, jobId });
    if (job!.counters) onStanding({ state: job!.state, counters: job!.counters, ...(waiting ? { waiting } : {}) });
    if (ENDED.has(job!.state)) return job!;
    try {
      for await (const { events, state, counters } of api.client(JobRunService).watchJob({ orgId, jobId, afterSeq })) {
        afterSeq = events.at(-1)?.seqNo ?? afterSeq;
        if (counters) onStanding({ state, counters });
        attempt = 0;
      }
    } catch (error) {
      if (!isPassing(ConnectError.from(error))) throw error;
    }
    // The tenant's end is known before catalog has settled it: ask again shortly.
    await sleep(backoff(Math.min(attempt, 5), RETRY));
  }
}

/** Whether the stream may be tried again: the job is known to catalog, so the tenant will know it soon. */
function isPassing(error: ConnectError): boolean {
  const passing = [
    Code.Unavailable,
    Code.DeadlineExceeded,
    Code.Canceled,
    Code.NotFound,
    Code.Aborted,
    Code.ResourceExhausted,
  ];
  return passing.includes(error.code) || reasonOf(error) === 'TENANT_NOT_PROVISIONED';
}
