import { MINUTE_MS, SECOND_MS, sleep } from '@mad/process';
import { JobService, JobState, type Job } from '@mad/proto/catalog';
import { JobRunService } from '@mad/proto/results';
import { allPages } from '../../apps/cli/src/pages.ts';
import type { User } from './load.ts';

/** A job that has not ended by then counts as lost. */
const END_MS = 2 * MINUTE_MS;
const PAGE = 1000;
const ENDED = new Set([JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED]);

/**
 * What is not as it must be of the jobs of this name, as sentences; empty when nothing was lost: every accepted job
 * ended well with every item exactly once and its events without a gap, both databases say the same of it, and there
 * is no other job.
 */
export async function losses(user: User, name: string, accepted: readonly string[], items: number): Promise<string[]> {
  const { api, orgId } = user;
  const found: string[] = [];
  const deadline = Date.now() + END_MS;
  for (const jobId of accepted) {
    const broken = await brokenOf(user, await endOf(user, jobId, deadline), items);
    found.push(...broken.map((what) => `${user.organization}: job ${jobId}: ${what}`));
  }
  const jobs = await allPages(
    (pageToken) => api.client(JobService).listJobs({ orgId, pageSize: PAGE, pageToken }),
    (page) => page.jobs,
  );
  const others = jobs.filter((job) => job.name === name && !accepted.includes(job.jobId));
  found.push(...others.map(({ jobId }) => `${user.organization}: job ${jobId} exists, and nobody was told`));
  const twice = accepted.length - new Set(accepted).size;
  if (twice > 0) found.push(`${user.organization}: ${twice} submissions were answered with another's job`);
  return found;
}

async function endOf({ api, orgId }: User, jobId: string, deadline: number): Promise<Job> {
  for (;;) {
    const { job } = await api.client(JobService).getJob({ orgId, jobId });
    if (ENDED.has(job!.state) || Date.now() > deadline) return job!;
    await sleep(SECOND_MS / 4);
  }
}

async function brokenOf({ api, orgId }: User, job: Job, items: number): Promise<string[]> {
  const { jobId } = job;
  const runs = api.client(JobRunService);
  const { jobRun } = await runs.getJobRun({ orgId, jobId });
  const work = await allPages(
    (pageToken) => runs.listWorkItems({ orgId, jobId, pageSize: PAGE, pageToken }),
    (page) => page.items,
  );
  const events = await allPages(
    (pageToken) => runs.listJobEvents({ orgId, jobId, pageSize: PAGE, pageToken }),
    (page) => page.events,
  );
  const distinct = new Set(work.map(({ taskId, itemNo }) => `${taskId} ${itemNo}`)).size;
  const counters = job.counters!;
  const { cached, scored, failed, skipped, cancelled, pending } = counters;
  const sum = cached + scored + failed + skipped + cancelled + pending;
  const claims: [holds: boolean, otherwise: string][] = [
    [job.state === JobState.COMPLETED, `is ${JobState[job.state]}`],
    [Number(counters.requested) === items, `${counters.requested} of ${items} items were requested`],
    [sum === counters.requested, `its counters add up to ${sum} of ${counters.requested}`],
    [scored === counters.requested, `${scored} of ${counters.requested} items were scored`],
    [work.length === items, `has ${work.length} items, not ${items}`],
    [distinct === work.length, `has ${work.length - distinct} items twice`],
    [events.every(({ seqNo }, i) => Number(seqNo) === i + 1), 'its events have a gap'],
    [jobRun!.counters!.scored === scored, `the tenant counts ${jobRun!.counters!.scored} scored, catalog ${scored}`],
  ];
  return claims.filter(([holds]) => !holds).map(([, otherwise]) => otherwise);
}
