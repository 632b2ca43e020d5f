import { Code, ConnectError, type Client } from '@connectrpc/connect';
import { readThrough, type Cache } from '@mad/cache';
import { SECOND_MS, type Logger, type Metrics } from '@mad/process';
import { OrganizationStatus, type Organization, type OrganizationService } from '@mad/proto/identity';
import { reasonOf, rpcError } from '@mad/rpc';

/** How long an organization may go on as it was after it was suspended or its quotas were changed. */
const KEEP_MS = 30 * SECOND_MS;
const PATIENCE_MS = 5 * SECOND_MS;
const RETRY_MS = SECOND_MS;

/** What an organization may use. */
export interface OrganizationQuotas {
  maxConcurrentJobs: number;
  maxQueuedTasks: number;
  maxMolecules: number;
  maxStorageBytes: number;
  maxRunningTasks: number;
}

/** An organization as far as catalog must know it. */
export interface DescribedOrganization {
  status: OrganizationStatus;
  slug: string;
  region: string;
  quotas: OrganizationQuotas;
}

/** What identity says of organizations, at most 30 s old. */
export interface Organizations {
  /**
   * The organization, fit for this use. Throws NOT_FOUND with ORGANIZATION_NOT_FOUND for one that does not exist,
   * FAILED_PRECONDITION with TENANT_SUSPENDED or (writing to a read-only one) STATE_CONFLICT, UNAVAILABLE without identity.
   */
  require(orgId: string, use: 'reading' | 'writing'): Promise<DescribedOrganization>;
  /** Asks identity anew at the next request. */
  forget(orgId: string): Promise<void>;
}

/** Asks identity about organizations, through the cache. */
export function organizationsOf(
  identity: Client<typeof OrganizationService>,
  options: { cache: Cache; logger: Logger; metrics?: Metrics },
): Organizations {
  const known = readThrough<DescribedOrganization>(options.cache, {
    name: 'catalog_organization',
    ttlMs: KEEP_MS,
    load: async (orgId) => {
      try {
        const { organization } = await identity.describeOrganization({ orgId }, { timeoutMs: PATIENCE_MS });
        return described(organization!);
      } catch (error) {
        throw identityError(error, orgId);
      }
    },
    metrics: options.metrics,
    logger: options.logger,
  });
  return {
    forget: (orgId) => known.forget(orgId),
    async require(orgId, use) {
      const organization = await known.get(orgId);
      switch (organization.status) {
        case OrganizationStatus.ACTIVE:
        case OrganizationStatus.PROVISIONING:
          return organization;
        case OrganizationStatus.READ_ONLY:
          if (use === 'reading') return organization;
          throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', 'the organization is read-only', { org_id: orgId });
        case OrganizationStatus.SUSPENDED:
          throw rpcError(Code.FailedPrecondition, 'TENANT_SUSPENDED', 'the organization is suspended', {
            org_id: orgId,
          });
        default:
          throw organizationNotFound(orgId);
      }
    },
  };
}

function described({ status, slug, region, quotas }: Organization): DescribedOrganization {
  return {
    status,
    slug,
    region,
    quotas: {
      maxConcurrentJobs: quotas?.maxConcurrentJobs ?? 0,
      maxQueuedTasks: quotas?.maxQueuedTasks ?? 0,
      maxMolecules: Number(quotas?.maxMolecules ?? 0),
      maxStorageBytes: Number(quotas?.maxStorageBytes ?? 0),
      maxRunningTasks: quotas?.maxRunningTasks ?? 0,
    },
  };
}

function organizationNotFound(orgId: string): ConnectError {
  return rpcError(Code.NotFound, 'ORGANIZATION_NOT_FOUND', `organization ${orgId} not found`, { org_id: orgId });
}

/** Identity's refusal of catalog's own call is catalog's defect, not the user's: only these two are the user's affair. */
export function identityError(error: unknown, orgId: string): unknown {
  if (reasonOf(error) === 'ORGANIZATION_NOT_FOUND') return organizationNotFound(orgId);
  const code = error instanceof ConnectError ? error.code : undefined;
  if (code === Code.Unavailable || code === Code.DeadlineExceeded) {
    const options = { cause: error, retryAfterMs: RETRY_MS };
    return rpcError(Code.Unavailable, 'SERVICE_UNAVAILABLE', 'identity does not answer', {}, options);
  }
  return new Error('identity did not describe an organization', { cause: error });
}
