import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { QuotaFailureSchema } from '@mad/proto/rpc';
import { rpcError } from '@mad/rpc';
import { withDefaults, type QuotaLimits } from './domain/quotas.ts';

/**
 * Throws RESOURCE_EXHAUSTED when one more would be over the organization's quota. Locks the organization's row until
 * the transaction ends, so that two at once cannot both be the last.
 */
export async function requireRoom(tx: Tx, orgId: string, quota: keyof QuotaLimits, countSql: string): Promise<void> {
  const [organization] = await tx.query<{ quotas: Partial<QuotaLimits> }>(
    'SELECT quotas FROM identity.organizations WHERE org_id = $1 FOR NO KEY UPDATE',
    [orgId],
  );
  const [used] = await tx.query<{ count: string }>(countSql, [orgId]);
  const limit = withDefaults(organization?.quotas ?? {})[quota];
  if (Number(used!.count) < limit) return;
  const description = `the organization's limit is ${limit}`;
  throw rpcError(
    Code.ResourceExhausted,
    'QUOTA_EXCEEDED',
    `${quota}: ${description}`,
    { quota, limit: `${limit}` },
    {
      details: [
        { desc: QuotaFailureSchema, value: { violations: [{ subject: `organizations/${orgId}`, description }] } },
      ],
    },
  );
}
