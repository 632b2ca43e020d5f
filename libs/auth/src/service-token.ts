import { MINUTE_MS, SECOND_MS } from '@mad/process';
import type { ServiceCaller } from '@mad/rpc';
import { decodeJwt, jwtVerify, SignJWT, type CryptoKey, type JWK } from 'jose';
import { ALGORITHM, importSigningJwk } from './signing-key.ts';
import { invalidToken, tokenError } from './token-errors.ts';
import { rememberVerified } from './verified-tokens.ts';

/** Audience of service tokens. */
export const SERVICE_TOKEN_AUDIENCE = 'mad-services';
const LIFETIME_MS = 5 * MINUTE_MS;
/** A token this close to its end is replaced. */
const RENEW_BEFORE_MS = MINUTE_MS;
const CLOCK_TOLERANCE_MS = 5 * SECOND_MS;

/** Which service signs, with its own private key. */
export interface ServiceIdentity {
  service: string;
  privateJwk: JWK;
}

/** Returns the service's current token: an ES256 JWT of 5 minutes, the same one until a minute before its end. */
export function createServiceTokenSigner({ service, privateJwk }: ServiceIdentity): () => Promise<string> {
  const key = importSigningJwk(privateJwk);
  // Whoever signs first hears of a wrong key; nobody else must.
  key.catch(() => {});
  let current: { token: Promise<string>; renewAt: number } | undefined;
  const sign = async (now: number): Promise<string> =>
    new SignJWT()
      .setProtectedHeader({ alg: ALGORITHM, typ: 'JWT' })
      .setIssuer(service)
      .setAudience(SERVICE_TOKEN_AUDIENCE)
      .setIssuedAt(Math.floor(now / SECOND_MS))
      .setExpirationTime(Math.floor((now + LIFETIME_MS) / SECOND_MS))
      .sign(await key);
  return () => {
    const now = Date.now();
    if (!current || now >= current.renewAt)
      current = { token: sign(now), renewAt: now + LIFETIME_MS - RENEW_BEFORE_MS };
    return current.token;
  };
}

/** Public keys by service; two while a service changes its key. */
export type ServiceKeys = Readonly<Record<string, JWK | readonly JWK[]>>;

/** Turns a service token into its caller. Throws UNAUTHENTICATED with TOKEN_EXPIRED, WRONG_AUDIENCE or TOKEN_INVALID. */
export type ServiceTokenVerifier = (token: string) => Promise<ServiceCaller>;

/** Verifies service tokens against the configured public keys: the one who says to be catalog must hold catalog's key. */
export function createServiceTokenVerifier({ keys }: { keys: ServiceKeys }): ServiceTokenVerifier {
  const imported = new Map<string, Promise<CryptoKey[]>>();
  const keysOf = (service: string): Promise<CryptoKey[]> => {
    if (!Object.hasOwn(keys, service)) throw invalidToken();
    let found = imported.get(service);
    if (!found) {
      const jwks = [keys[service]!].flat<(JWK | readonly JWK[])[]>();
      imported.set(service, (found = Promise.all(jwks.map((jwk) => importSigningJwk({ ...jwk, d: undefined })))));
    }
    return found;
  };
  return rememberVerified(async (token) => {
    try {
      const service = decodeJwt(token).iss ?? '';
      const payload = await verifiedByOne(token, await keysOf(service), service);
      return { value: { kind: 'service', service }, expiresAt: payload.exp! * SECOND_MS };
    } catch (error) {
      throw tokenError(error);
    }
  });
}

async function verifiedByOne(token: string, keys: CryptoKey[], issuer: string): Promise<{ exp?: number }> {
  let failure: unknown = invalidToken();
  for (const key of keys) {
    try {
      const options = {
        issuer,
        audience: SERVICE_TOKEN_AUDIENCE,
        algorithms: [ALGORITHM],
        clockTolerance: CLOCK_TOLERANCE_MS / SECOND_MS,
        maxTokenAge: LIFETIME_MS / SECOND_MS,
        requiredClaims: ['iat', 'exp'],
      };
      return (await jwtVerify(token, key, options)).payload;
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}
