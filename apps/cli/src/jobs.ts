import type { JsonObject } from '@bufbuild/protobuf';
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import { uuidv7 } from '@mad/process';
import { JobService, MoleculeService, MoleculeSetService, type CachePolicy, type Job } from '@mad/proto/catalog';
import { JobRunService, type WorkItem } from '@mad/proto/results';
import { CommandFailure, EXIT } from './failure.ts';
import { stateName, waitingText } from './job-text.ts';
import type { Output } from './output.ts';
import { allPages } from './pages.ts';
import { progressBar } from './progress.ts';
import type { Signed } from './session.ts';
import { watchJob } from './watch-job.ts';

/** Submits a job. */
export async function submitJob(
  { api, orgId }: Signed,
  job: {
    pipelineId: string;
    moleculeSetId: string;
    parameters: JsonObject;
    name: string;
    priority?: number;
    cachePolicy?: CachePolicy;
    minConfidence?: number;
    maxAgeS?: number;
  },
): Promise<Job> {
  return (await api.client(JobService).createJob({ ...job, orgId, requestId: uuidv7() })).job!;
}

/** Shows a job's progress until it ends. */
export async function watched(signed: Signed, jobId: string, output: Output): Promise<Job> {
  const { job } = await signed.api.client(JobService).getJob({ orgId: signed.orgId, jobId });
  const bar = progressBar(output, job!.name || 'job', Number(job!.counters?.requested ?? 0) || 1);
  try {
    return await watchJob(signed, jobId, ({ counters, state, waiting }) => {
      const standing = waiting ? `${stateName(state)}: ${waitingText(waiting)}` : stateName(state);
      bar.update(Number(counters.requested - counters.pending), standing);
    });
  } finally {
    bar.stop();
  }
}

/** Which hits are wanted; see ListHits. */
export interface HitChoice {
  limit: number;
  taskId?: string;
  filter?: string;
  bestPerMolecule?: boolean;
  includeBestPose?: boolean;
}

/** A job's best items, best first. */
export async function listHits(
  { api, orgId }: Signed,
  jobId: string,
  choice: HitChoice,
  /** Told when retention dropped the job's results. */
  onDropped?: (time: Timestamp) => void,
): Promise<WorkItem[]> {
  const { limit, ...which } = choice;
  const pageSize = Math.min(limit, 1000);
  return allPages(
    (pageToken) => api.client(JobRunService).listHits({ orgId, jobId, ...which, pageSize, pageToken }),
    (page) => {
      if (page.resultsDropTime !== undefined) onDropped?.(page.resultsDropTime);
      return page.hits;
    },
    limit,
  );
}

/** The names of molecules, by id. */
export async function moleculeNames(
  { api, orgId }: Signed,
  hits: readonly { moleculeId: string }[],
): Promise<Map<string, string>> {
  const ids = [...new Set(hits.map((hit) => hit.moleculeId))];
  const client = api.client(MoleculeService);
  const found = await Promise.all(
    ids.map(async (moleculeId) => (await client.getMolecule({ orgId, moleculeId })).molecule!),
  );
  return new Map(found.map((molecule) => [molecule.moleculeId, molecule.name]));
}

/** The id of a library, given by its name or id. */
export async function setByName({ api, orgId }: Signed, name: string): Promise<string> {
  if (/^[0-9a-f]{8}-[0-9a-f-]{27}$/i.test(name)) return name;
  const sets = await allPages(
    (pageToken) => api.client(MoleculeSetService).listMoleculeSets({ orgId, pageToken }),
    (page) => page.moleculeSets,
  );
  const found = sets.find((one) => one.name === name);
  if (!found) throw new CommandFailure(`no library ${name}`, EXIT.notFound);
  return found.moleculeSetId;
}
