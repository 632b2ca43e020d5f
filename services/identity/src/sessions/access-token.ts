import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { MAX_ACCESS_TOKEN_MS, signAccessToken, type AccessTokenClaims } from '@mad/auth';
import type { IdentityContext } from '../context.ts';

/** Whom an access token is for: the version is the membership's or, for the platform, the account's. */
export type Subject = AccessTokenClaims & { version: number };

/** Signs an access token of ten minutes: the fields of a TokenPair that it fills. */
export async function accessToken(context: IdentityContext, subject: Subject) {
  const accessToken = await signAccessToken(await context.keys.current(), subject, MAX_ACCESS_TOKEN_MS);
  return { accessToken, accessExpireTime: timestampFromMs(Date.now() + MAX_ACCESS_TOKEN_MS) };
}
