import { Code, type ServiceImpl } from '@connectrpc/connect';
import type { OrganizationErasureService } from '@mad/proto/tenancy';
import { rpcError } from '@mad/rpc';
import type { IdentityContext } from '../context.ts';
import { mayBeErased, type OrganizationStatusName } from '../domain/organization-status.ts';
import { eraseOrganizationRows } from '../erasure.ts';

/** Identity's part of an organization's erasure, for the provisioner. */
export function organizationErasureService({
  database,
}: IdentityContext): ServiceImpl<typeof OrganizationErasureService> {
  return {
    async eraseOrganization({ orgId }, ctx) {
      // One transaction: an organization has thousands of people at most.
      const rows = await database.asSystem(
        async (tx) => {
          const [found] = await tx.query<{ status: OrganizationStatusName }>(
            'SELECT status FROM identity.organizations WHERE org_id = $1 FOR UPDATE',
            [orgId],
          );
          if (found !== undefined && mayBeErased(found.status)) {
            const message = 'nobody asked for the erasure of this organization';
            throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', message, { org_id: orgId, status: found.status });
          }
          return eraseOrganizationRows(tx, orgId);
        },
        { signal: ctx.signal },
      );
      return { done: true, rows: Object.fromEntries(Object.entries(rows).map(([name, n]) => [name, BigInt(n)])) };
    },
  };
}
