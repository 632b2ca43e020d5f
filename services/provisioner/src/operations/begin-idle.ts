import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { SECOND_MS } from '@mad/process';
import { notFound, rpcError } from '@mad/rpc';
import type { OperationKind, TenantKey } from '../domain/plan.ts';
import { isUsable } from '../domain/tenant-state.ts';
import { begin, type Held, type Request } from './lease.ts';
import { lockTenant } from './lock-tenant.ts';

const RETRY_MS = SECOND_MS;

/**
 * Begins an operation with a tenant that has a database and nothing else to do. Throws NOT_FOUND, UNAVAILABLE while it is busy,
 * FAILED_PRECONDITION where it has no database.
 */
export async function beginWithIdle(
  tx: Tx,
  key: TenantKey,
  kind: OperationKind,
  request: Request & { leaseMs: number },
): Promise<Held> {
  const row = await lockTenant(tx, key);
  if (row === undefined) throw notFound('tenant', key.schema);
  const about = { org_id: key.orgId, schema: key.schema, state: row.state };
  if (row.step !== null) {
    const options = { retryAfterMs: RETRY_MS };
    throw rpcError(Code.Unavailable, 'TENANT_PROVISIONING', 'the tenant is busy: try again', about, options);
  }
  if (!isUsable(row.state) && row.state !== 'suspended') {
    throw rpcError(Code.FailedPrecondition, 'TENANT_NOT_PROVISIONED', 'the tenant has no database', about);
  }
  return begin(tx, key, kind, request);
}
