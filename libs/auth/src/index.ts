export { accessInterceptor, type AccessOptions } from './access-interceptor.ts';
export { accessRuleOf, SELF, type AccessRule } from './access-rule.ts';
export {
  ACCESS_TOKEN_AUDIENCE,
  ACCESS_TOKEN_ISSUER,
  createAccessTokenVerifier,
  MAX_ACCESS_TOKEN_MS,
  signAccessToken,
  type AccessTokenClaims,
  type AccessTokenVerifier,
  type AccessTokenVerifierOptions,
  type VerifiedAccessToken,
} from './access-token.ts';
export { identityKeys } from './identity-keys.ts';
export type { KeySet, KeySetOptions } from './key-set.ts';
export { createLeaseSigner, createLeaseVerifier, type Lease } from './lease-token.ts';
export {
  createServiceTokenSigner,
  createServiceTokenVerifier,
  SERVICE_TOKEN_AUDIENCE,
  type ServiceIdentity,
  type ServiceKeys,
  type ServiceTokenVerifier,
} from './service-token.ts';
export { serviceTokenInterceptor } from './service-token-interceptor.ts';
export { serviceTransports } from './service-transports.ts';
export { generateSigningKey, publicJwkOf, type SigningKey } from './signing-key.ts';
export { privateJwkSetting, serviceKeysSetting } from './key-settings.ts';
