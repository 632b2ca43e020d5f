import { durationMs, timestampDate } from '@bufbuild/protobuf/wkt';
import {
  JobState,
  TenantAvailability,
  type Job,
  type JobCounters,
  type JobWaiting,
  type TenantJob,
} from '@mad/proto/catalog';
import type { JobEvent, WorkItem } from '@mad/proto/results';
import { duration, table } from './output.ts';

/** Hits for people: rank, name, score with its unit. */
export function hitTable(hits: WorkItem[], names: Map<string, string>): string {
  const posed = hits.some((hit) => hit.bestPose !== undefined);
  const rows = hits.map((hit, i) => [
    hit.rank || i + 1,
    names.get(hit.moleculeId) ?? hit.moleculeId,
    (hit.score ?? Number.NaN).toFixed(3),
    hit.scoreUnits,
    hit.reusedFromJobId ? 'cached' : '',
    ...(posed ? [poseText(hit)] : []),
    hit.smiles,
  ]);
  return table(['rank', 'molecule', 'score', 'units', '', ...(posed ? ['best pose'] : []), 'SMILES'], rows);
}

function poseText({ bestPose }: WorkItem): string {
  return bestPose === undefined ? '' : `replica ${bestPose.replicate}, rank ${bestPose.poseRank}`;
}

/** "running", "completed" … */
export const stateName = (state: JobState): string => JobState[state].toLowerCase();

/** The counters a list shows: requested, cached, scored, failed, pending. */
export function counts(counters: JobCounters | undefined): number[] {
  const { requested = 0n, cached = 0n, scored = 0n, failed = 0n, pending = 0n } = counters ?? {};
  return [requested, cached, scored, failed, pending].map(Number);
}

/** One line about a job. */
export function summary(job: Job): string {
  const {
    requested = 0n,
    cached = 0n,
    scored = 0n,
    failed = 0n,
    skipped = 0n,
    cancelled = 0n,
    pending = 0n,
  } = job.counters ?? {};
  const detail = job.detail ? ` (${job.detail})` : '';
  return (
    `${job.jobId} ${stateName(job.state)}${detail}: ${requested} requested = ${cached} cached + ${scored} scored + ` +
    `${failed} failed + ${skipped} skipped + ${cancelled} cancelled + ${pending} pending`
  );
}

/** What a job waits for, in a few words: with its place in the line and the time, where they are known. */
export function waitingText({ detail, position, estimatedWait }: JobWaiting): string {
  const place = position > 0n ? `, place ${position}` : '';
  const time = estimatedWait ? `, about ${duration(durationMs(estimatedWait))}` : '';
  return `${detail}${place}${time}`;
}

/** What the light record does not say: what the job waits for, and how the organization's own database stands. */
export function standingLines(tenant: TenantJob | undefined, waiting: JobWaiting | undefined): string[] {
  const lines = waiting ? [`  ${waitingText(waiting)}`] : [];
  if (!tenant) return lines;
  if (tenant.availability !== TenantAvailability.AVAILABLE) {
    const reason = tenant.reason ? ` (${tenant.reason})` : '';
    const state = TenantAvailability[tenant.availability].toLowerCase().replaceAll('_', ' ');
    return [...lines, `  tenant ${state}: ${tenant.detail}${reason}`];
  }
  const tasks = tenant.tasks.map(({ taskId, engine, counters }) => {
    const { requested = 0n, pending = 0n } = counters ?? {};
    return `${taskId} on ${engine} ${requested - pending} of ${requested}`;
  });
  return [...lines, `  tenant ${stateName(tenant.state)} at event ${tenant.eventSeq}: ${tasks.join(', ')}`];
}

/** A line of a job's history: number, time, event, detail. */
export function eventRow(event: JobEvent): (string | number)[] {
  return [Number(event.seqNo), timestampDate(event.time!).toISOString(), event.event, event.detail];
}
