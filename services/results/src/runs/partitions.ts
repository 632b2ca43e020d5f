import { uuidTime } from '@mad/process';
import type { TenantCallOptions, Tenants, TenantTx } from '@mad/tenancy';

/** The first day, UTC, of the month a job was made in: it names the partitions that hold the job. Throws for no UUIDv7. */
export function monthOf(jobId: string): string {
  return `${uuidTime(jobId).toISOString().slice(0, 7)}-01`;
}

/** Makes the partitions of a month where they are missing. */
export async function ensurePartitions(tenants: Tenants, orgId: string, month: string): Promise<void> {
  await tenants.transact(orgId, (tx) => tx.query('SELECT ensure_partitions($1::date)', [month]));
}

/** The job whose row found no partition; undefined when something else is wrong. */
function homelessJob(error: unknown): string | undefined {
  const { code, message = '', detail = '' } = error as { code?: string; message?: string; detail?: string };
  if (code !== '23514' || !message.startsWith('no partition of relation')) return undefined;
  return /\(job_id\) = \(([0-9a-f-]{36})\)/.exec(detail)?.[1];
}

/**
 * A transaction that writes poses or events. Materializing a job made its partitions, but jobs live long: where a partition
 * has gone meanwhile (an old month that was dropped or not restored), it is made again, and the transaction with it.
 */
export async function transactOnJob<T>(
  tenants: Tenants,
  orgId: string,
  fn: (tx: TenantTx) => Promise<T>,
  options?: TenantCallOptions,
): Promise<T> {
  try {
    return await tenants.transact(orgId, fn, options);
  } catch (error) {
    const jobId = homelessJob(error);
    if (jobId === undefined) throw error;
    await ensurePartitions(tenants, orgId, monthOf(jobId));
    return tenants.transact(orgId, fn, options);
  }
}
