import { Code } from '@connectrpc/connect';
import { SECOND_MS } from '@mad/process';
import { rpcError } from '@mad/rpc';
import { errors, jwtVerify, SignJWT, type JWK } from 'jose';
import { ALGORITHM, importSigningJwk } from './signing-key.ts';

const AUDIENCE = 'mad-lease';
const ISSUER = 'catalog';

/** The right of a worker to run one attempt of one task execution. */
export interface Lease {
  orgId: string;
  taskExecutionId: string;
  attempt: number;
  worker: string;
}

/** Signs leases with catalog's private key. A lease ends at `expiresAt` (rounded down to the second). */
export function createLeaseSigner(privateJwk: JWK): (lease: Lease, expiresAt: Date) => Promise<string> {
  const key = importSigningJwk(privateJwk);
  key.catch(() => {});
  return async (lease, expiresAt) =>
    new SignJWT({
      org_id: lease.orgId,
      task_execution_id: lease.taskExecutionId,
      attempt: lease.attempt,
      worker: lease.worker,
    })
      .setProtectedHeader({ alg: ALGORITHM, typ: 'JWT' })
      .setIssuer(ISSUER)
      .setAudience(AUDIENCE)
      .setExpirationTime(Math.floor(expiresAt.getTime() / SECOND_MS))
      .sign(await key);
}

/**
 * Reads leases with catalog's public key. An expired lease is FAILED_PRECONDITION with LEASE_LOST; anything that is no lease
 * is PERMISSION_DENIED with TOKEN_INVALID. The caller compares the lease with what its request names.
 */
export function createLeaseVerifier(publicJwk: JWK): (token: string) => Promise<Lease> {
  const key = importSigningJwk({ ...publicJwk, d: undefined });
  key.catch(() => {});
  return async (token) => {
    try {
      const options = { issuer: ISSUER, audience: AUDIENCE, algorithms: [ALGORITHM], requiredClaims: ['exp'] };
      const { payload } = await jwtVerify<Record<string, unknown>>(token, await key, options);
      return {
        orgId: String(payload['org_id']),
        taskExecutionId: String(payload['task_execution_id']),
        attempt: Number(payload['attempt']),
        worker: String(payload['worker']),
      };
    } catch (cause) {
      if (cause instanceof errors.JWTExpired) {
        throw rpcError(Code.FailedPrecondition, 'LEASE_LOST', 'the lease has expired', {}, { cause });
      }
      if (!(cause instanceof errors.JOSEError)) throw cause;
      throw rpcError(Code.PermissionDenied, 'TOKEN_INVALID', 'the lease is not valid', {}, { cause });
    }
  };
}
