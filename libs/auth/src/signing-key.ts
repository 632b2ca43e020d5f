import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, type CryptoKey, type JWK } from 'jose';

/** The only algorithm of this house: a token that names another is refused. */
export const ALGORITHM = 'ES256';

/** A P-256 key pair as JSON Web Keys (RFC 7517). `privateJwk` is a secret. */
export interface SigningKey {
  /** The key's thumbprint (RFC 7638): it names the key in a token's header. */
  kid: string;
  privateJwk: JWK;
  publicJwk: JWK;
}

/** Makes a new key pair. */
export async function generateSigningKey(): Promise<SigningKey> {
  const pair = await generateKeyPair(ALGORITHM, { extractable: true });
  const [privateJwk, publicJwk] = await Promise.all([exportJWK(pair.privateKey), exportJWK(pair.publicKey)]);
  const kid = await calculateJwkThumbprint(publicJwk);
  const named = { kid, alg: ALGORITHM, use: 'sig' };
  return { kid, privateJwk: { ...privateJwk, ...named }, publicJwk: { ...publicJwk, ...named } };
}

/** The public half of a private key. Throws a TypeError for a key that is not on P-256. */
export function publicJwkOf(jwk: JWK): JWK {
  const { kty, crv, x, y, kid } = jwk;
  if (kty !== 'EC' || crv !== 'P-256' || !x || !y) throw new TypeError('not a P-256 key');
  return { kty, crv, x, y, kid, alg: ALGORITHM, use: 'sig' };
}

/** Imports a key for signing or verifying, as its `d` says. Throws a TypeError for a key that is not on P-256. */
export async function importSigningJwk(jwk: JWK): Promise<CryptoKey> {
  const d = jwk.d === undefined ? {} : { d: jwk.d };
  return (await importJWK({ ...publicJwkOf(jwk), ...d }, ALGORITHM)) as CryptoKey;
}
