import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import {
  OrganizationSchema,
  OrganizationStatus,
  type Organization,
  type Quotas,
  type QuotasSchema,
} from '@mad/proto/identity';
import { invalid } from '@mad/rpc';
import type { OrganizationRow } from '../db/entities/organization.ts';
import { badQuota, withDefaults, type QuotaLimits } from '../domain/quotas.ts';
import type { OrganizationStatusName } from '../domain/organization-status.ts';

/** The columns of an organization, without `SELECT *`. */
export const ORGANIZATION_COLUMNS = 'org_id, name, slug, status, region, quotas, version, created_at, updated_at';

const STATUS: Record<OrganizationStatusName, OrganizationStatus> = {
  provisioning: OrganizationStatus.PROVISIONING,
  active: OrganizationStatus.ACTIVE,
  suspended: OrganizationStatus.SUSPENDED,
  read_only: OrganizationStatus.READ_ONLY,
  erasing: OrganizationStatus.ERASING,
  erased: OrganizationStatus.ERASED,
};

function quotasMessage(quotas: QuotaLimits): MessageInitShape<typeof QuotasSchema> {
  return {
    maxConcurrentJobs: quotas.max_concurrent_jobs,
    maxQueuedTasks: quotas.max_queued_tasks,
    maxMolecules: BigInt(quotas.max_molecules),
    maxStorageBytes: BigInt(quotas.max_storage_bytes),
    maxMembers: quotas.max_members,
    maxTokens: quotas.max_tokens,
    maxRunningTasks: quotas.max_running_tasks,
  };
}

/** The quotas of a request, defaults filled in. Throws INVALID_ARGUMENT for one that is no positive whole number. */
export function requestedQuotas(quotas: Quotas | undefined): QuotaLimits {
  const asked = withDefaults(
    quotas === undefined
      ? {}
      : {
          max_concurrent_jobs: quotas.maxConcurrentJobs,
          max_queued_tasks: quotas.maxQueuedTasks,
          max_molecules: Number(quotas.maxMolecules),
          max_storage_bytes: Number(quotas.maxStorageBytes),
          max_members: quotas.maxMembers,
          max_tokens: quotas.maxTokens,
          max_running_tasks: quotas.maxRunningTasks,
        },
  );
  const bad = badQuota(asked);
  if (bad !== undefined)
    throw invalid(`quotas.${bad}`, 'must be a whole number from 1 to 2^53 - 1, or 0 for the default');
  return asked;
}

/** An organization as callers see it. */
export function organizationMessage(row: OrganizationRow): Organization {
  return create(OrganizationSchema, {
    orgId: row.org_id,
    name: row.name,
    slug: row.slug,
    status: STATUS[row.status],
    region: row.region,
    quotas: quotasMessage(withDefaults(row.quotas)),
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
    etag: String(row.version),
  });
}
