import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { fromJson, type JsonObject, type JsonValue } from '@bufbuild/protobuf';
import { uuidv7 } from '@mad/process';
import {
  JobService,
  JobState,
  MoleculeService,
  MoleculeSetService,
  PipelineService,
  PipelineSpecSchema,
  type Job,
} from '@mad/proto/catalog';
import { eventually } from './fleet.ts';
import type { Person } from './people.ts';

/** The project's examples folder. */
export const EXAMPLES = fileURLToPath(new URL('../../../../examples/', import.meta.url));
export const IMATINIB = 'Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(-c2cccnc2)n1';
const ENDED = new Set([JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED]);

/** Normal alkanes C1 … Cn: as many different molecules as wanted. */
export const alkanes = (count: number): string[] => Array.from({ length: count }, (_, i) => 'C'.repeat(i + 1));

/** Registers SMILES as a sealed library; answers its id. */
export async function library({ client, orgId }: Person, smiles: string[]): Promise<string> {
  const request = { orgId, requestId: uuidv7(), name: `library ${uuidv7()}` };
  const { moleculeSetId } = (await client(MoleculeSetService).createMoleculeSet(request)).moleculeSet!;
  for (let start = 0; start < smiles.length; start += 500) {
    const rows = smiles.slice(start, start + 500).map((one) => ({ smiles: one, name: '' }));
    await client(MoleculeService).registerMolecules({ orgId, requestId: uuidv7(), rows, moleculeSetId });
  }
  await client(MoleculeSetService).sealMoleculeSet({ orgId, moleculeSetId });
  return moleculeSetId;
}

/** Publishes one of the example pipelines; answers its id. */
export async function examplePipeline({ client, orgId }: Person, file: string): Promise<string> {
  const { name, spec } = JSON.parse(readFileSync(`${EXAMPLES}${file}`, 'utf8')) as { name: string; spec: JsonValue };
  const pipelines = client(PipelineService);
  const created = await pipelines.createPipeline({ orgId, requestId: uuidv7(), name: `${name} ${uuidv7()}` });
  const { pipelineId } = created.pipeline!;
  await pipelines.createPipelineVersion({
    orgId,
    pipelineId,
    requestId: uuidv7(),
    spec: fromJson(PipelineSpecSchema, spec),
  });
  await pipelines.publishPipelineVersion({ orgId, pipelineId, version: 1, requestId: uuidv7() });
  return pipelineId;
}

/** Submits a job. */
export async function submit(
  { client, orgId }: Person,
  job: { pipelineId: string; moleculeSetId: string; parameters: JsonObject },
): Promise<Job> {
  return (await client(JobService).createJob({ orgId, requestId: uuidv7(), ...job })).job!;
}

/** Waits until a job has ended. */
export function ended({ client, orgId }: Person, jobId: string, timeoutMs = 60_000): Promise<Job> {
  return eventually(
    `job ${jobId} ends`,
    async () => {
      const { job } = await client(JobService).getJob({ orgId, jobId });
      return ENDED.has(job!.state) && job!;
    },
    timeoutMs,
  );
}
