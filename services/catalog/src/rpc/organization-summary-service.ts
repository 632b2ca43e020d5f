import { create, type JsonValue } from '@bufbuild/protobuf';
import { Code, ConnectError, type ServiceImpl } from '@connectrpc/connect';
import { SECOND_MS } from '@mad/process';
import {
  StoredSummarySchema,
  TenantSummarySchema,
  type OrganizationSummary,
  type OrganizationSummaryService,
} from '@mad/proto/catalog';
import { invalid, nextPageToken, pageOf, reasonOf, userOf } from '@mad/rpc';
import type { CatalogContext } from '../context.ts';
import { identityError } from '../organizations.ts';
import { readUse, summaryMessage, totalUsage } from './organization-summary.ts';
import { readUsage, usageMessage, type UsageCursor } from './usage-rows.ts';

const IDENTITY_MS = 5 * SECOND_MS;
/** The rest of a summary does not wait longer for its databases, and for what they know. */
const TENANTS_MS = 2 * SECOND_MS;

const isUsageCursor = (value: JsonValue): boolean =>
  Array.isArray(value) && value.length === 2 && value.every((part) => typeof part === 'string');

/** Organizations at a glance, composed of what identity, catalog and the provisioner each know. */
export function organizationSummaryService(context: CatalogContext): ServiceImpl<typeof OrganizationSummaryService> {
  const { database, identity, organizations, storage, tenants, logger } = context;

  async function describeTenants(
    orgId: string,
    signal: AbortSignal,
  ): Promise<Pick<OrganizationSummary, 'tenants' | 'tenantsUnavailable'>> {
    try {
      const answer = await tenants.describeTenants({ orgId }, { timeoutMs: TENANTS_MS, signal });
      const described = answer.tenants.map(({ tenant, sizeBytes }) => {
        const { schema, state, schemaVersion } = tenant!;
        return create(TenantSummarySchema, { schema, state, schemaVersion, sizeBytes });
      });
      return { tenants: described, tenantsUnavailable: '' };
    } catch (error) {
      logger.warn({ error, org_id: orgId }, 'the provisioner did not describe an organization');
      return { tenants: [], tenantsUnavailable: 'the provisioner does not answer' };
    }
  }

  async function describeStorage(
    orgId: string,
    signal: AbortSignal,
  ): Promise<Pick<OrganizationSummary, 'stored' | 'storedUnavailable'>> {
    try {
      const { stored } = await storage.describeStorage({ orgId }, { timeoutMs: TENANTS_MS, signal });
      const described = stored.map(({ purpose, objects, sizeBytes }) =>
        create(StoredSummarySchema, { purpose, objects, sizeBytes }),
      );
      return { stored: described, storedUnavailable: '' };
    } catch (error) {
      if (reasonOf(error) === 'TENANT_NOT_PROVISIONED') return { stored: [], storedUnavailable: '' };
      logger.warn({ error, org_id: orgId }, 'results did not say what an organization stores');
      return { stored: [], storedUnavailable: 'its results do not answer' };
    }
  }

  return {
    async listUsage(request, ctx) {
      const { orgId } = userOf(ctx);
      const { grouping, firstMonth, lastMonth } = request;
      if (firstMonth !== '' && lastMonth !== '' && firstMonth > lastMonth) {
        throw invalid('last_month', 'must not be before first_month');
      }
      await organizations.require(orgId, 'reading');
      const query = ['usage', orgId, grouping, firstMonth, lastMonth];
      const { size, cursor } = pageOf(request, { query, isCursor: isUsageCursor });
      const after = cursor as UsageCursor | undefined;
      const asked = { orgId, grouping, firstMonth, lastMonth, after, limit: size + 1 };
      const rows = await database.inOrg(orgId, (tx) => readUsage(tx, asked), { readOnly: true, signal: ctx.signal });
      const shown = rows.slice(0, size);
      const last = shown.at(-1);
      return {
        usage: shown.map(usageMessage),
        nextPageToken: rows.length > size ? nextPageToken(query, [last!.month, last!.user_id]) : '',
      };
    },

    async getOrganizationSummary(_request, ctx) {
      const { orgId } = userOf(ctx);
      const { signal } = ctx;
      await organizations.require(orgId, 'reading');
      const [use, counts, databases, stored] = await Promise.all([
        identity.getOrganizationUse({ orgId }, { timeoutMs: IDENTITY_MS, signal }).catch((error: unknown) => {
          throw identityError(error, orgId);
        }),
        database.inOrg(orgId, (tx) => readUse(tx, [orgId]), { readOnly: true, signal }),
        describeTenants(orgId, signal),
        describeStorage(orgId, signal),
      ]);
      return {
        summary: Object.assign(summaryMessage(use.use!, counts.get(orgId)!), databases, stored, {
          usage: totalUsage(counts.get(orgId)!),
        }),
      };
    },

    async listOrganizationSummaries({ pageSize, pageToken }, { signal }) {
      const options = { timeoutMs: IDENTITY_MS, signal };
      const page = await identity.listOrganizationUse({ pageSize, pageToken }, options).catch((error: unknown) => {
        // The token is identity's own, and so is its judgement of it.
        if (error instanceof ConnectError && error.code === Code.InvalidArgument) throw error;
        throw identityError(error, '');
      });
      const ids = page.uses.map(({ organization }) => organization!.orgId);
      const counts = await database.asSystem((tx) => readUse(tx, ids), { signal });
      const summaries = page.uses.map((use) => summaryMessage(use, counts.get(use.organization!.orgId)!));
      return { summaries, nextPageToken: page.nextPageToken };
    },
  };
}
