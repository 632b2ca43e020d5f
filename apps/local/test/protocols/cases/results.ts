import { expect } from '@jest/globals';
import {
  CacheService,
  ExecutionService,
  ExportService,
  JobRunService,
  JobStatisticsService,
  PoseService,
  PrewarmService,
  RetentionService,
  StorageService,
} from '@mad/proto/results';
import { TenantSchemaService } from '@mad/proto/tenancy';
import type { Case } from '../case.ts';
import { MOLECULES } from '../world.ts';

/** Every service of results. */
export const resultsCases: Case[] = [
  {
    name: 'what a job computed, in its own database',
    service: JobRunService,
    method: 'ListWorkItems',
    as: 'user',
    request: ({ orgId, jobId }) => ({ orgId, jobId, pageSize: 1000 }),
    responses: () => [
      {
        items: Array.from({ length: MOLECULES }, (_, i) => ({ itemNo: i + 1, status: 'WORK_STATUS_SCORED' })),
      },
    ],
  },
  {
    name: 'the events of a job that has ended, to their end',
    service: JobRunService,
    method: 'WatchJob',
    as: 'user',
    request: ({ orgId, jobId }) => ({ orgId, jobId }),
    responses: () => [
      {
        events: expect.arrayContaining([expect.objectContaining({ event: 'job.completed' })]),
        state: 'JOB_STATE_COMPLETED',
      },
    ],
  },
  {
    name: 'the events of a job that waits, until the deadline',
    service: JobRunService,
    method: 'WatchJob',
    as: 'user',
    request: ({ orgId, waitingJobId }) => ({ orgId, jobId: waitingJobId }),
    timeoutMs: 3000,
    responses: () => [{ events: [{ seqNo: '1', event: 'job.materialized' }] }],
    error: { code: 'deadline_exceeded' },
  },
  {
    name: 'the exports of a job that has none',
    service: ExportService,
    method: 'ListExports',
    as: 'user',
    request: ({ orgId, jobId }) => ({ orgId, jobId }),
    responses: () => [{}],
  },
  {
    name: 'a file of an export that is not there',
    service: ExportService,
    method: 'DownloadExport',
    as: 'user',
    request: ({ orgId, jobId }) => ({ orgId, jobId, exportId: jobId, partNo: 1 }),
    error: { code: 'not_found', reason: 'RESOURCE_NOT_FOUND' },
  },
  {
    name: 'a file of the poses of a job that has none',
    service: PoseService,
    method: 'DownloadPoses',
    as: 'user',
    request: ({ orgId, jobId }) => ({ orgId, jobId, taskId: 'properties' }),
    responses: () => [{}],
  },
  {
    name: 'how far the tasks of a job are',
    service: JobStatisticsService,
    method: 'GetJobCoverage',
    as: 'user',
    request: ({ orgId, jobId }) => ({ orgId, jobId }),
    responses: () => [{ tasks: [{ taskId: 'properties', counters: { scored: String(MOLECULES) } }] }],
  },
  {
    name: 'what a retention policy would delete: nothing of jobs that ended today',
    service: RetentionService,
    method: 'PreviewRetention',
    as: 'user',
    request: ({ orgId }) => ({ orgId, rules: [{ keepDays: 30 }] }),
    responses: () => [{ wouldDelete: expect.not.objectContaining({ items: expect.anything() }) }],
  },
  {
    name: 'what is kept for later jobs',
    service: CacheService,
    method: 'GetCacheStatistics',
    as: 'user',
    request: ({ orgId }) => ({ orgId }),
    responses: () => [{ tasks: [{ task: expect.stringContaining('rdkit.properties') }] }],
    changes: true,
  },
  {
    name: 'a database opened ahead of its reader, for identity',
    service: PrewarmService,
    method: 'PrewarmTenant',
    as: 'identity',
    request: ({ orgId }) => ({ orgId }),
    responses: () => [{ open: true }],
  },
  {
    name: 'what is kept in the object store, for catalog: nothing was docked, or exported',
    service: StorageService,
    method: 'DescribeStorage',
    as: 'catalog',
    request: ({ orgId }) => ({ orgId }),
    responses: () => [{}],
  },
  {
    name: 'how a job stands, for catalog',
    service: ExecutionService,
    method: 'ReconcileJob',
    as: 'catalog',
    request: ({ orgId, jobId }) => ({ orgId, jobId }),
    responses: ({ jobId }) => [{ progress: { jobId, state: 'JOB_STATE_COMPLETED' } }],
  },
  {
    name: 'outcomes streamed without a lease',
    service: ExecutionService,
    method: 'AppendResults',
    as: 'worker',
    request: ({ orgId, jobId }) => [
      { orgId, taskExecutionId: jobId, attempt: 1, leaseToken: 'none', batch: 1, scored: { itemNo: [1] } },
      { orgId, taskExecutionId: jobId, attempt: 1, leaseToken: 'none', batch: 2, scored: { itemNo: [2] } },
    ],
    error: { code: 'permission_denied', message: 'the lease is not valid', reason: 'TOKEN_INVALID' },
  },
  {
    name: "the tenant schema's migrations, for the provisioner",
    service: TenantSchemaService,
    method: 'ListMigrations',
    as: 'provisioner',
    responses: () => [{ schema: 'results' }],
  },
];
