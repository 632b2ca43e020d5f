import { Code, type ConnectError } from '@connectrpc/connect';
import { createLeaseVerifier, type Lease, type ServiceKeys } from '@mad/auth';
import { reasonOf, rpcError } from '@mad/rpc';
import type { Fenced } from '../domain/execution.ts';

/** Reads leases by any of catalog's public keys: it has two while it changes its own. */
export function leaseVerifier(keys: ServiceKeys[string]): (token: string) => Promise<Lease> {
  const verifiers = [keys].flat().map((key) => createLeaseVerifier(key));
  return async (token) => {
    let failure: unknown;
    for (const verify of verifiers) {
      try {
        return await verify(token);
      } catch (error) {
        failure = error;
        if (reasonOf(error) !== 'TOKEN_INVALID') break;
      }
    }
    throw failure;
  };
}

/** The part of a worker's request that its lease must cover. */
export interface LeasedRequest {
  orgId: string;
  taskExecutionId: string;
  attempt: number;
  leaseToken: string;
}

/**
 * Checks that the request's lease is catalog's, lives, and is for exactly this. An expired one is LEASE_LOST, a wrong one
 * PERMISSION_DENIED.
 */
export async function checkLease(verify: (token: string) => Promise<Lease>, request: LeasedRequest): Promise<Lease> {
  const lease = await verify(request.leaseToken);
  const { orgId, taskExecutionId, attempt } = request;
  if (lease.orgId === orgId && lease.taskExecutionId === taskExecutionId && lease.attempt === attempt) return lease;
  throw rpcError(Code.PermissionDenied, 'TOKEN_INVALID', 'the lease is for another organization, execution or attempt');
}

/** ABORTED: somebody else has the execution now, or it was ended. The worker drops what it has. */
export function leaseLost(id: string, attempt: number, { status, attempt: current }: Fenced): ConnectError {
  const message = `attempt ${attempt} has lost task execution ${id}: it is ${status} under attempt ${current}`;
  return rpcError(Code.Aborted, 'LEASE_LOST', message, { task_execution_id: id, attempt: String(attempt) });
}
