import { BackupService, RouteService, ServerService, TenantService } from '@mad/proto/provisioner';
import type { Case } from '../case.ts';

/** Every service of the provisioner. */
export const provisionerCases: Case[] = [
  {
    name: "the organization's database",
    service: TenantService,
    method: 'GetTenant',
    as: 'admin',
    request: ({ orgId }) => ({ orgId, schema: 'results' }),
    responses: ({ orgId }) => [{ tenant: { orgId, schema: 'results', state: 'TENANT_STATE_READY' } }],
  },
  {
    name: 'the fleet, for the gateway',
    service: TenantService,
    method: 'GetFleetHealth',
    as: 'gateway',
    responses: () => [{ servers: [{ name: 'local', healthy: true }], tenantsByState: { READY: '1' } }],
    changes: true,
  },
  {
    name: 'every tenant server, for the platform',
    service: ServerService,
    method: 'ListServers',
    as: 'platform',
    responses: () => [{ servers: [{ name: 'local', region: 'local' }] }],
  },
  {
    name: 'how often an organization is backed up, for the platform',
    service: BackupService,
    method: 'GetBackupPolicy',
    as: 'platform',
    request: ({ orgId }) => ({ orgId }),
    responses: () => [{ policy: { everyHours: 24, keep: 7 }, isDefault: true }],
  },
  {
    name: "a tenant's route, for results",
    service: RouteService,
    method: 'GetRoute',
    as: 'results',
    request: ({ orgId }) => ({ orgId, schema: 'results' }),
    responses: ({ orgId }) => [{ route: { orgId, state: 'TENANT_STATE_READY' } }],
    changes: true,
  },
  {
    name: 'every change of a tenant, until the deadline',
    service: RouteService,
    method: 'WatchTenantChanges',
    as: 'results',
    request: () => ({ schema: 'results', afterSeq: '0' }),
    timeoutMs: 3000,
    responses: ({ orgId }) => [{ seq: '1', orgId }],
    error: { code: 'deadline_exceeded' },
    changes: true,
  },
];
