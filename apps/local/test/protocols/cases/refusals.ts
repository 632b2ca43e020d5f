import { JobService, MoleculeService, QueueService } from '@mad/proto/catalog';
import { MemberService, OrganizationService, SessionService } from '@mad/proto/identity';
import { JobRunService } from '@mad/proto/results';
import type { Case } from '../case.ts';

const STRANGE = '0198c000-0000-7000-8000-00000000ffff';
const REQUEST = '0198c000-0000-7000-8000-0000000000a3';

/** What a caller is refused, and what it is told. */
export const refusalCases: Case[] = [
  {
    name: 'a job that is not there',
    service: JobService,
    method: 'GetJob',
    as: 'user',
    request: ({ orgId }) => ({ orgId, jobId: STRANGE }),
    error: {
      code: 'not_found',
      message: `job ${STRANGE} not found`,
      reason: 'RESOURCE_NOT_FOUND',
      metadata: { resource: 'job', id: STRANGE },
    },
  },
  {
    name: 'the stream of a job that is not there',
    service: JobRunService,
    method: 'WatchJob',
    as: 'user',
    request: ({ orgId }) => ({ orgId, jobId: STRANGE }),
    error: { code: 'not_found', message: `job ${STRANGE} not found`, reason: 'RESOURCE_NOT_FOUND' },
  },
  {
    name: "another organization's path",
    service: JobService,
    method: 'GetJob',
    as: 'user',
    request: ({ jobId }) => ({ orgId: STRANGE, jobId }),
    error: {
      code: 'not_found',
      message: `organization ${STRANGE} not found`,
      reason: 'ORGANIZATION_NOT_FOUND',
      metadata: { org_id: STRANGE },
    },
  },
  {
    name: 'no token',
    service: JobService,
    method: 'GetJob',
    as: 'nobody',
    request: ({ orgId, jobId }) => ({ orgId, jobId }),
    error: { code: 'unauthenticated', reason: 'TOKEN_MISSING' },
  },
  {
    name: 'a forged token',
    service: JobService,
    method: 'GetJob',
    as: 'forger',
    request: ({ orgId, jobId }) => ({ orgId, jobId }),
    error: { code: 'unauthenticated', message: 'the token is not valid', reason: 'TOKEN_INVALID' },
  },
  {
    name: 'a wrong password',
    service: SessionService,
    method: 'Login',
    as: 'nobody',
    request: () => ({ email: 'nobody@acme.example', password: 'wrong', organization: 'acme' }),
    error: { code: 'unauthenticated', reason: 'CREDENTIALS_WRONG' },
  },
  {
    name: 'a missing permission',
    service: MemberService,
    method: 'AddMember',
    as: 'user',
    request: ({ orgId }) => ({ orgId, requestId: REQUEST, email: 'x@acme.example', roles: ['user'] }),
    error: {
      code: 'permission_denied',
      message: 'the permission members.create is missing',
      reason: 'PERMISSION_MISSING',
      metadata: { permission: 'members.create' },
    },
  },
  {
    name: "the platform's method with a member's token",
    service: OrganizationService,
    method: 'ListOrganizations',
    as: 'admin',
    error: { code: 'permission_denied', reason: 'WRONG_AUDIENCE' },
  },
  {
    name: "a service's method with a member's token",
    service: QueueService,
    method: 'LeaseTasks',
    as: 'admin',
    request: () => ({ worker: 'w', engines: ['e'], maxTasks: 1, freeCores: 1, freeMemoryMb: 1 }),
    error: { code: 'unauthenticated', reason: 'TOKEN_INVALID' },
  },
  {
    name: "a service's method with another service's token",
    service: QueueService,
    method: 'LeaseTasks',
    as: 'results',
    request: () => ({ worker: 'w', engines: ['e'], maxTasks: 1, freeCores: 1, freeMemoryMb: 1 }),
    error: { code: 'permission_denied', reason: 'CALLER_NOT_ALLOWED', metadata: { service: 'results' } },
  },
  {
    name: 'two wrong fields, both named',
    service: JobRunService,
    method: 'ListHits',
    as: 'user',
    request: ({ orgId }) => ({ orgId, jobId: 'x', pageSize: 5000 }),
    error: { code: 'invalid_argument', fields: ['job_id', 'page_size'] },
  },
  {
    name: 'a wrong field in the second message of a stream',
    service: MoleculeService,
    method: 'ImportMolecules',
    as: 'user',
    request: ({ orgId }) => [
      { orgId, rows: [{ smiles: 'CCN' }] },
      { orgId, rows: [] },
    ],
    error: { code: 'invalid_argument', fields: ['rows'] },
  },
  {
    name: 'a text of the caller in the error, beyond ASCII',
    service: MemberService,
    method: 'AddMember',
    as: 'admin',
    request: ({ orgId }) => ({ orgId, requestId: REQUEST, email: 'x@acme.example', roles: ['β-роль %3A 100%; 🧪'] }),
    error: {
      code: 'invalid_argument',
      message: 'roles[0]: "β-роль %3A 100%; 🧪" is not a role of the organization',
      fields: ['roles[0]'],
    },
  },
];
