import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { QuotaFailureSchema } from '@mad/proto/rpc';
import { rpcError } from '@mad/rpc';

/** What of an organization's quotas catalog counts, with the quota's name and the word for people. */
const QUOTAS = {
  molecules: { quota: 'max_molecules', noun: 'molecules' },
  artifact_bytes: { quota: 'max_storage_bytes', noun: 'bytes of artifacts' },
} as const;

/**
 * Adds to what an organization uses, in the transaction that uses it. Its row stays locked until then: call it last.
 * Throws RESOURCE_EXHAUSTED with QUOTA_EXCEEDED when that is more than the limit.
 */
export async function chargeQuota(
  tx: Tx,
  orgId: string,
  what: keyof typeof QUOTAS,
  amount: number,
  limit: number,
): Promise<void> {
  const [row] = await tx.query<{ used: string }>(
    `INSERT INTO catalog.org_usage AS u (org_id, ${what}) VALUES ($1, $2)
     ON CONFLICT (org_id) DO UPDATE SET ${what} = u.${what} + excluded.${what} RETURNING ${what} AS used`,
    [orgId, amount],
  );
  if (Number(row!.used) <= limit) return;
  const { quota, noun } = QUOTAS[what];
  const before = Number(row!.used) - amount;
  const description = `the organization may have ${limit} ${noun}; it has ${before}, and this adds ${amount}`;
  const metadata = { quota, limit: String(limit), used: String(before), requested: String(amount) };
  throw rpcError(Code.ResourceExhausted, 'QUOTA_EXCEEDED', `${quota}: ${description}`, metadata, {
    details: [{ desc: QuotaFailureSchema, value: { violations: [{ subject: `organization:${orgId}`, description }] } }],
  });
}
