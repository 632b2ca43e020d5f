import { expect } from '@jest/globals';
import {
  ArtifactService,
  JobPreviewService,
  JobService,
  MoleculeService,
  MoleculeSetService,
  PipelineService,
  QueueService,
  OrganizationSummaryService,
} from '@mad/proto/catalog';
import { OrganizationErasureService } from '@mad/proto/tenancy';
import type { Case } from '../case.ts';
import { MOLECULES } from '../world.ts';

const REQUEST = '0198c000-0000-7000-8000-0000000000a2';

/** Every service of catalog. */
export const catalogCases: Case[] = [
  {
    name: 'what an organization used, by month',
    service: OrganizationSummaryService,
    method: 'ListUsage',
    as: 'user',
    changes: true,
    request: ({ orgId }) => ({ orgId }),
    responses: () => [{ usage: [{ month: expect.stringMatching(/^20\d\d-\d\d$/) }] }],
  },
  {
    name: 'what a job would find done already',
    service: JobPreviewService,
    method: 'PreviewJob',
    as: 'user',
    request: ({ orgId, pipelineId, moleculeSetId }) => ({ orgId, pipelineId, moleculeSetId }),
    responses: () => [{ molecules: String(MOLECULES), tasks: [{ hits: String(MOLECULES) }] }],
  },
  {
    name: 'an organization at a glance',
    service: OrganizationSummaryService,
    method: 'GetOrganizationSummary',
    as: 'admin',
    request: ({ orgId }) => ({ orgId }),
    responses: ({ orgId }) => [{ summary: { orgId, slug: 'acme', jobs: { total: '2', completed: '1' } } }],
    changes: true,
  },
  {
    name: "an artifact's bytes",
    service: ArtifactService,
    method: 'DownloadArtifact',
    as: 'user',
    request: ({ orgId, artifactId }) => ({ orgId, artifactId }),
    responses: ({ artifactId }) => [
      { artifact: { artifactId, sizeBytes: '7' }, content: Buffer.from('one two').toString('base64') },
    ],
  },
  {
    name: 'a job that has ended',
    service: JobService,
    method: 'GetJob',
    as: 'user',
    request: ({ orgId, jobId }) => ({ orgId, jobId }),
    responses: ({ jobId }) => [
      { job: { jobId, state: 'JOB_STATE_COMPLETED', counters: { requested: `${MOLECULES}`, scored: `${MOLECULES}` } } },
    ],
  },
  {
    name: "a job's frozen input, streamed to results",
    service: JobService,
    method: 'ListJobInputs',
    as: 'results',
    request: ({ orgId, jobId }) => ({ orgId, jobId, afterItemNo: MOLECULES - 1 }),
    responses: () => [{ inputs: [{ itemNo: MOLECULES, canonicalSmiles: 'C'.repeat(MOLECULES) }] }],
  },
  {
    name: 'registration judges row by row',
    service: MoleculeService,
    method: 'RegisterMolecules',
    as: 'user',
    request: ({ orgId }) => ({
      orgId,
      requestId: REQUEST,
      rows: [{ smiles: 'OCC', name: 'Äthanol' }, { smiles: 'C1CC' }, { smiles: 'CСO', name: 'a Cyrillic С' }],
    }),
    responses: () => [
      { registered: [{ line: 1, canonicalSmiles: 'CCO' }], rejected: [{ line: 2 }, { line: 3, smiles: 'CСO' }] },
    ],
  },
  {
    name: 'a library streamed in batches',
    service: MoleculeService,
    method: 'ImportMolecules',
    as: 'user',
    request: ({ orgId }) => [
      { orgId, rows: [{ smiles: 'CCN' }, { smiles: 'nonsense' }] },
      { orgId, rows: [{ smiles: 'CCS' }] },
    ],
    responses: () => [{ registered: '2', rejected: '1', rejections: [{ line: 2, smiles: 'nonsense' }] }],
    changes: true,
  },
  {
    name: "a library's molecules, a page of them",
    service: MoleculeSetService,
    method: 'ListMoleculeSetMembers',
    as: 'user',
    request: ({ orgId, moleculeSetId }) => ({ orgId, moleculeSetId, pageSize: 2 }),
    responses: () => [{ nextPageToken: expect.any(String) }],
  },
  {
    name: 'a published pipeline with a name beyond ASCII',
    service: PipelineService,
    method: 'GetPipeline',
    as: 'user',
    request: ({ orgId, pipelineId }) => ({ orgId, pipelineId }),
    responses: ({ pipelineId }) => [{ pipeline: { pipelineId, name: 'Eigenschaften (β)', latestVersion: 1 } }],
  },
  {
    name: 'a worker is leased nothing for an engine nobody asks for',
    service: QueueService,
    method: 'LeaseTasks',
    as: 'worker',
    request: () => lease({ waitMs: 0 }),
    responses: () => [{}],
  },
  {
    name: 'a long poll ends with its deadline',
    service: QueueService,
    method: 'LeaseTasks',
    as: 'worker',
    request: () => lease({ waitMs: 20_000 }),
    timeoutMs: 400,
    error: { code: 'deadline_exceeded' },
  },
  {
    name: 'an organization nobody has rows of is erased, for the provisioner',
    service: OrganizationErasureService,
    method: 'EraseOrganization',
    as: 'provisioner',
    request: () => ({ orgId: '0198c000-0000-7000-8000-0000000000e0' }),
    responses: () => [{ done: true, rows: { molecules: '0', jobs_meta: '0' } }],
  },
];

function lease({ waitMs }: { waitMs: number }) {
  return { worker: 'suite', engines: ['nobody@1'], maxTasks: 1, waitMs, freeCores: 1, freeMemoryMb: 1 };
}
