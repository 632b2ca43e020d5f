import { createPrivateKey, sign } from 'node:crypto';
import {
  ACCESS_TOKEN_AUDIENCE,
  ACCESS_TOKEN_ISSUER,
  createServiceTokenSigner,
  generateSigningKey,
  signAccessToken,
  type AccessTokenClaims,
  type SigningKey,
} from '@mad/auth';
import { MINUTE_MS, SECOND_MS, uuidv7 } from '@mad/process';
import { testAccessKey, testServiceKey } from './keys.ts';

/** Who a token is for; what is left out is made up. */
export type TokenClaims = Partial<AccessTokenClaims> & { orgId: string };

function complete(claims: Partial<AccessTokenClaims>): AccessTokenClaims {
  return {
    ...claims,
    userId: claims.userId ?? uuidv7(),
    roles: claims.roles ?? [],
    permissions: claims.permissions ?? [],
  };
}

/** A valid access token of a user in an organization. */
export async function userToken(claims: TokenClaims): Promise<string> {
  return signAccessToken(await testAccessKey(), complete(claims));
}

/** A valid access token of a platform administrator: it has no organization. */
export async function platformToken(claims: Omit<Partial<AccessTokenClaims>, 'orgId'> = {}): Promise<string> {
  return signAccessToken(await testAccessKey(), complete({ roles: ['super_admin'], ...claims, orgId: undefined }));
}

/** A valid service token of the named service. */
export async function serviceToken(service: string): Promise<string> {
  const { privateJwk } = await testServiceKey(service);
  return createServiceTokenSigner({ service, privateJwk })();
}

/** Call options that send a token: `client.getJob(request, bearer(token))`. */
export function bearer(token: string): { headers: { authorization: string } } {
  return { headers: { authorization: `Bearer ${token}` } };
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

/** A compact JWT with any header and payload; tokens that our own signer would never make. */
function forge(header: object, payload: object, key?: Pick<SigningKey, 'privateJwk'>): string {
  const content = `${encode(header)}.${encode(payload)}`;
  if (key === undefined) return `${content}.`;
  const privateKey = createPrivateKey({ key: key.privateJwk, format: 'jwk' });
  const signature = sign('sha256', Buffer.from(content), { key: privateKey, dsaEncoding: 'ieee-p1363' });
  return `${content}.${signature.toString('base64url')}`;
}

/** Why a token must be refused. */
export type BadToken =
  | 'expired'
  | 'foreignAudience'
  | 'foreignIssuer'
  | 'foreignKey'
  | 'altered'
  | 'unsigned'
  | 'algNone'
  | 'malformed'
  | 'empty';

/** Tokens that every user method must refuse, each of which differs from a valid one of these claims in one thing. */
export async function badTokens(claims: TokenClaims): Promise<Record<BadToken, string>> {
  const key = await testAccessKey();
  const full = complete(claims);
  const valid = await signAccessToken(key, full);
  const [head = '', body = '', signature = ''] = valid.split('.');
  const now = Math.floor(Date.now() / SECOND_MS);
  const header = { alg: 'ES256', typ: 'JWT', kid: key.kid };
  const payload = {
    iss: ACCESS_TOKEN_ISSUER,
    aud: ACCESS_TOKEN_AUDIENCE,
    sub: full.userId,
    org_id: full.orgId,
    roles: full.roles,
    perms: full.permissions,
    ver: 0,
    iat: now,
    exp: now + MINUTE_MS / SECOND_MS,
  };
  const more = { ...payload, perms: [...full.permissions, 'everything'] };
  return {
    expired: await signAccessToken(key, full, -MINUTE_MS),
    foreignAudience: forge(header, { ...payload, aud: 'another' }, key),
    foreignIssuer: forge(header, { ...payload, iss: 'another' }, key),
    // Names our key and is signed with another.
    foreignKey: forge(header, payload, await generateSigningKey()),
    altered: `${head}.${encode(more)}.${signature}`,
    unsigned: `${head}.${body}.`,
    algNone: forge({ ...header, alg: 'none' }, payload),
    malformed: 'not.a.token',
    empty: '',
  };
}
