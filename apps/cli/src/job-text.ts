import { timestampDate } from '@bufbuild/protobuf/wkt';
import { JobState, type Job, type JobCounters } from '@mad/proto/catalog';
import type { JobEvent, WorkItem } from '@mad/proto/results';
import { table } from './output.ts';

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

/** A line of a job's history: number, time, event, detail. */
export function eventRow(event: JobEvent): (string | number)[] {
  return [Number(event.seqNo), timestampDate(event.time!).toISOString(), event.event, event.detail];
}
