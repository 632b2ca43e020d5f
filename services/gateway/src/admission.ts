import type { DescMethod } from '@bufbuild/protobuf';
import type { Transport } from '@connectrpc/connect';
import { accessRuleOf, createAccessTokenVerifier, identityKeys } from '@mad/auth';
import { Audience } from '@mad/proto/access';
import { credentials } from './credentials.ts';
import type { RateLimits } from './rate-limits.ts';

/** What the edge knows of a request before any service does. */
export interface EdgeRequest {
  /** As the client sent it. */
  authorization: string | undefined;
  /** The request's own span. */
  traceparent: string;
  requestId: string;
  /** The client's address; behind trusted proxies the one they report. */
  address: string;
}

/** Lets a request in: counts it, and makes the headers its inner call carries. Nothing else of the client's goes inward. */
export type Admission = (request: EdgeRequest, method: DescMethod) => Promise<Headers>;

const BEARER = /^Bearer (\S+)$/i;

/**
 * Requests are counted by token and organization where the token is genuine, else by address: a made-up token can use up
 * nobody's share but its sender's. Public methods (logins) are counted by address whoever calls. Whether a caller may is
 * left to the services.
 */
export function admission({ identity, limits }: { identity: Transport; limits: RateLimits }): Admission {
  const authorize = credentials(identity);
  const verify = createAccessTokenVerifier({ jwks: identityKeys(identity) });
  const callerOf = async (credential: string | undefined) => {
    const token = credential && BEARER.exec(credential)?.[1];
    return token ? verify(token).catch(() => undefined) : undefined;
  };

  return async ({ authorization, traceparent, requestId, address }, method) => {
    const headers = new Headers({ traceparent, 'x-request-id': requestId, 'x-forwarded-for': address });
    const byAddress = () => limits.count('address', address);
    const isPublic = accessRuleOf(method)?.audience === Audience.PUBLIC;
    if (isPublic) await byAddress();
    const credential = await authorize(authorization, byAddress);
    if (credential) headers.set('authorization', credential);
    if (isPublic) return headers;
    const caller = await callerOf(credential);
    if (!caller) {
      await byAddress();
      return headers;
    }
    await limits.count('token', authorization!);
    if (caller.kind === 'user') await limits.count('organization', caller.orgId);
    return headers;
  };
}
