import { Code, type ConnectError } from '@connectrpc/connect';
import { rpcError } from '@mad/rpc';
import { errors } from 'jose';

/** UNAUTHENTICATED with why a token was refused, or the error itself where it is not about the token. */
export function tokenError(error: unknown): unknown {
  if (error instanceof errors.JWTExpired) {
    return rpcError(Code.Unauthenticated, 'TOKEN_EXPIRED', 'the token has expired', {}, { cause: error });
  }
  if (error instanceof errors.JWTClaimValidationFailed && error.claim === 'aud') {
    return rpcError(Code.Unauthenticated, 'WRONG_AUDIENCE', 'the token is for another audience', {}, { cause: error });
  }
  if (error instanceof errors.JOSEError) return invalidToken(error);
  return error;
}

/** UNAUTHENTICATED without a word about which check failed: that is for the log. */
export function invalidToken(cause?: unknown): ConnectError {
  return rpcError(Code.Unauthenticated, 'TOKEN_INVALID', 'the token is not valid', {}, { cause });
}
