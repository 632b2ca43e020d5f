import { Code } from '@connectrpc/connect';
import { notFound, rpcError } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import { cacheKey, type CacheEntryStatus } from '../domain/cache-entry.ts';
import { appendAudit } from './audit.ts';
import { holdOffRetention } from './retention-lock.ts';

/** Which entry, and who asks. */
export interface PinRequest {
  task: string;
  inputSignature: string;
  userId: string;
}

/**
 * Pins an entry or lets it go; a repeat changes nothing. NOT_FOUND when nothing is kept for the input; an invalid entry
 * is refused with STATE_CONFLICT: pinned, it would answer again.
 */
export async function setPin(
  tx: TenantTx,
  { task, inputSignature, userId }: PinRequest,
  to: Exclude<CacheEntryStatus, 'invalid'>,
): Promise<void> {
  const key = cacheKey(task, inputSignature);
  await holdOffRetention(tx);
  const [entry] = await tx.query<{ status: CacheEntryStatus; canonical_job_id: string }>(
    'SELECT status, canonical_job_id FROM result_cache WHERE cache_key = $1 FOR UPDATE',
    [key],
  );
  if (entry === undefined) throw notFound('cache entry', key);
  if (entry.status === to) return;
  if (entry.status === 'invalid') {
    const message = `the cache entry ${key} was invalidated, and is neither pinned nor let go`;
    throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', message, { cache_key: key });
  }
  await tx.execute('UPDATE result_cache SET status = $2 WHERE cache_key = $1', [key, to]);
  const action = to === 'pinned' ? 'cache.pin' : 'cache.unpin';
  await appendAudit(tx, { userId, action, jobId: entry.canonical_job_id, outcome: 'ok', metadata: { cache_key: key } });
}
