import type { ServiceImpl } from '@connectrpc/connect';
import type { OrganizationErasureService } from '@mad/proto/tenancy';
import type { CatalogContext } from '../context.ts';
import { eraseOrganizationRows } from '../erasure.ts';

/** Catalog's part of an organization's erasure, for the provisioner. */
export function organizationErasureService({
  database,
  organizations,
}: CatalogContext): ServiceImpl<typeof OrganizationErasureService> {
  return {
    async eraseOrganization({ orgId }, ctx) {
      // It may be known here as one in use: nobody is to write meanwhile.
      await organizations.forget(orgId);
      const { done, counts } = await database.asSystem((tx) => eraseOrganizationRows(tx, orgId), {
        signal: ctx.signal,
      });
      return { done, rows: Object.fromEntries(Object.entries(counts).map(([name, n]) => [name, BigInt(n)])) };
    },
  };
}
