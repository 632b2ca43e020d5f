import type { JWK } from 'jose';
import type { ServiceKeys } from './service-token.ts';

/** Reads a service's private key from a JSON setting (`reader.json(name, privateJwkSetting)`). Never repeats the value. */
export function privateJwkSetting(value: unknown): JWK {
  const jwk = jwkSetting(value);
  if (jwk.d === undefined) throw new Error('must be a private key');
  return jwk;
}

/** Reads every service's public key, or two while one changes, from a JSON setting: an object by service. */
export function serviceKeysSetting(value: unknown): ServiceKeys {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Error('must be an object of public JSON Web Keys by service');
  }
  for (const [service, keys] of Object.entries(value)) {
    for (const jwk of [keys].flat().map(jwkSetting)) {
      if (jwk.d !== undefined) throw new Error(`must hold public keys: the one of ${service} is private`);
    }
  }
  return value as ServiceKeys;
}

function jwkSetting(value: unknown): JWK {
  const jwk = value as JWK | null;
  if (typeof jwk !== 'object' || jwk?.kty !== 'EC' || jwk.crv !== 'P-256') {
    throw new Error('must be a P-256 JSON Web Key');
  }
  return jwk;
}
