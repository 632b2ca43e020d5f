import type { JsonObject } from '@bufbuild/protobuf';
import type { Job } from '@mad/proto/catalog';
import type { WorkItem } from '@mad/proto/results';
import { createSet, registerLibrary, sealSet, type LibraryRow } from '../commands/molecule.ts';
import { hitTable, stateName } from '../job-text.ts';
import { listHits, moleculeNames, submitJob, watched } from '../jobs.ts';
import { table, type Output } from '../output.ts';
import { progressBar } from '../progress.ts';
import type { DemoOrganization } from './members.ts';
import type { JobReport } from './report.ts';

/** How many hits a job shows. */
const TOP = 10;

/** Registers rows as a sealed library and shows what was refused. */
export async function register({ signed }: DemoOrganization, name: string, rows: LibraryRow[], output: Output) {
  const set = await createSet(signed, name);
  const bar = progressBar(output, 'registering', rows.length);
  const done = await registerLibrary(signed, rows, set.moleculeSetId, (count) => bar.update(count));
  bar.stop();
  await sealSet(signed, set.moleculeSetId);
  output.note(`${done.registered} molecules registered, ${done.rejected.length} rejected`);
  if (done.rejected.length > 0) {
    output.note(
      table(
        ['line', 'reason', 'SMILES', 'why'],
        done.rejected.map((r) => [r.line, r.reason, r.smiles, r.message]),
      ),
    );
  }
  return { setId: set.moleculeSetId, registered: done.registered, rejected: done.rejected.length };
}

/** What a job of the demo runs, and over which library. */
export interface DemoJob {
  pipelineId: string;
  setId: string;
  name: string;
  parameters: JsonObject;
}

/** Submits a job and watches it to its end. */
export async function runJob({ signed, slug }: DemoOrganization, demo: DemoJob, output: Output) {
  const began = Date.now();
  const { pipelineId, setId: moleculeSetId, name, parameters } = demo;
  const submitted = await submitJob(signed, { pipelineId, moleculeSetId, name, parameters });
  const job = await watched(signed, submitted.jobId, output);
  return { job, report: reportOf(job, slug, name, Date.now() - began) };
}

function reportOf(job: Job, org: string, pipeline: string, elapsedMs: number): JobReport {
  const count = (name: 'requested' | 'cached' | 'scored' | 'failed' | 'skipped' | 'cancelled' | 'pending') =>
    Number(job.counters?.[name] ?? 0n);
  return {
    job_id: job.jobId,
    org,
    pipeline,
    state: stateName(job.state),
    requested: count('requested'),
    cached: count('cached'),
    scored: count('scored'),
    failed: count('failed'),
    skipped: count('skipped'),
    cancelled: count('cancelled'),
    pending: count('pending'),
    elapsed_ms: elapsedMs,
  };
}

/** Shows a job's best molecules; answers them with their names by molecule id. */
export async function showHits(
  { signed }: DemoOrganization,
  job: Job,
  output: Output,
): Promise<{ hits: WorkItem[]; names: Map<string, string> }> {
  const hits = await listHits(signed, job.jobId, { limit: TOP });
  const names = await moleculeNames(signed, hits);
  output.note(hitTable(hits, names));
  return { hits, names };
}
