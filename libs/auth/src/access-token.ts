import { MINUTE_MS, SECOND_MS } from '@mad/process';
import { Code } from '@connectrpc/connect';
import { rpcError, type PlatformCaller, type UserCaller } from '@mad/rpc';
import { jwtVerify, SignJWT, type CryptoKey, type JWK, type JWTPayload } from 'jose';
import { createKeySet, type KeySetOptions } from './key-set.ts';
import { ALGORITHM, importSigningJwk, type SigningKey } from './signing-key.ts';
import { invalidToken, tokenError } from './token-errors.ts';
import { rememberVerified, type Verification } from './verified-tokens.ts';

/** Issuer and audience of access tokens. */
export const ACCESS_TOKEN_ISSUER = 'mad';
export const ACCESS_TOKEN_AUDIENCE = 'mad';

/** The longest an access token may live: a revoked right is gone after it. */
export const MAX_ACCESS_TOKEN_MS = 10 * MINUTE_MS;
const CLOCK_TOLERANCE_MS = 5 * SECOND_MS;

/** What an access token says. Without `orgId` it is a platform administrator's. */
export interface AccessTokenClaims {
  userId: string;
  orgId?: string;
  roles: readonly string[];
  permissions: readonly string[];
  sessionId?: string;
  /** The platform administrator who acts on the organization, as `act.sub` (RFC 8693). */
  onBehalf?: string;
  /** Raised when what the user may do changes: older tokens can be refused by it. */
  version?: number;
}

/** What a revocation check may look at. */
export interface VerifiedAccessToken {
  caller: UserCaller | PlatformCaller;
  version: number;
  issuedAt: Date;
}

const imported = new WeakMap<JWK, Promise<CryptoKey>>();

/** Signs an access token that ends after `ttlMs` (at most, and by default, 10 min). */
export async function signAccessToken(
  key: Pick<SigningKey, 'kid' | 'privateJwk'>,
  claims: AccessTokenClaims,
  ttlMs: number = MAX_ACCESS_TOKEN_MS,
): Promise<string> {
  if (ttlMs > MAX_ACCESS_TOKEN_MS) throw new RangeError('an access token lives at most 10 minutes');
  let privateKey = imported.get(key.privateJwk);
  if (!privateKey) imported.set(key.privateJwk, (privateKey = importSigningJwk(key.privateJwk)));
  const now = Math.floor(Date.now() / SECOND_MS);
  const payload: JWTPayload = {
    org_id: claims.orgId,
    roles: claims.roles,
    perms: claims.permissions,
    sid: claims.sessionId,
    ver: claims.version ?? 0,
    act: claims.onBehalf === undefined ? undefined : { sub: claims.onBehalf },
  };
  return new SignJWT(payload)
    .setProtectedHeader({ alg: ALGORITHM, kid: key.kid, typ: 'JWT' })
    .setSubject(claims.userId)
    .setIssuer(ACCESS_TOKEN_ISSUER)
    .setAudience(ACCESS_TOKEN_AUDIENCE)
    .setIssuedAt(now)
    .setExpirationTime(now + Math.floor(ttlMs / SECOND_MS))
    .sign(await privateKey);
}

/** How to verify access tokens. */
export interface AccessTokenVerifierOptions extends KeySetOptions {
  issuer?: string;
  audience?: string;
  /** Asked for every call, remembered tokens too; must be fast. Default: nothing is revoked before it expires. */
  isRevoked?: (token: VerifiedAccessToken) => boolean;
}

/** Turns an access token into its caller. Throws UNAUTHENTICATED with TOKEN_EXPIRED, WRONG_AUDIENCE, TOKEN_REVOKED or TOKEN_INVALID. */
export type AccessTokenVerifier = (token: string) => Promise<UserCaller | PlatformCaller>;

/**
 * Verifies access tokens against identity's published keys, which are fetched again when a token names an unknown one (not
 * more often than the cooldown). Verified tokens are remembered until they expire.
 */
export function createAccessTokenVerifier(options: AccessTokenVerifierOptions): AccessTokenVerifier {
  const { issuer = ACCESS_TOKEN_ISSUER, audience = ACCESS_TOKEN_AUDIENCE, isRevoked } = options;
  const keyOf = createKeySet(options);
  const verify = async (token: string): Promise<Verification<VerifiedAccessToken>> => {
    try {
      const { payload } = await jwtVerify(token, ({ kid }) => keyOf(kid), {
        issuer,
        audience,
        algorithms: [ALGORITHM],
        clockTolerance: CLOCK_TOLERANCE_MS / SECOND_MS,
        requiredClaims: ['sub', 'iat', 'exp'],
      });
      return { value: verifiedOf(payload), expiresAt: payload.exp! * SECOND_MS };
    } catch (error) {
      throw tokenError(error);
    }
  };
  if (!isRevoked) {
    return rememberVerified(async (token) => {
      const { value, expiresAt } = await verify(token);
      return { value: value.caller, expiresAt };
    });
  }
  const verified = rememberVerified(verify);
  return async (token) => {
    const found = await verified(token);
    if (isRevoked(found)) throw rpcError(Code.Unauthenticated, 'TOKEN_REVOKED', 'the token was revoked');
    return found.caller;
  };
}

/** Reads the claims; a signed token of another shape is a defect of its issuer, and refused all the same. */
function verifiedOf(payload: JWTPayload): VerifiedAccessToken {
  const { sub, iat, exp, org_id: orgId, roles, perms, sid, ver, act } = payload;
  if (!sub || !isStrings(roles) || !isStrings(perms)) throw invalidToken();
  if ((exp! - iat!) * SECOND_MS > MAX_ACCESS_TOKEN_MS + CLOCK_TOLERANCE_MS) throw invalidToken();
  const base = { userId: sub, roles, permissions: perms };
  const user = {
    sessionId: typeof sid === 'string' ? sid : undefined,
    onBehalf: (act as { sub?: string } | undefined)?.sub,
  };
  if (orgId !== undefined && typeof orgId !== 'string') throw invalidToken();
  return {
    caller: orgId === undefined ? { kind: 'platform', ...base } : { kind: 'user', orgId, ...base, ...user },
    version: typeof ver === 'number' ? ver : 0,
    issuedAt: new Date(iat! * SECOND_MS),
  };
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}
