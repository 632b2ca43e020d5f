import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto';

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** What the master key does: seals what must be read again, digests what must only be recognized. */
export interface MasterKey {
  /** AES-256-GCM: nonce, ciphertext, tag. `aad` names what is sealed, so that it cannot be put in another's place. */
  seal(plain: Uint8Array, aad: string): Buffer;
  /** Opens what `seal` made with the same `aad`. Throws when either was changed. */
  open(sealed: Uint8Array, aad: string): Buffer;
  /** HMAC-SHA256 of an API token's secret. */
  tokenDigest(secret: string): Buffer;
  /** HMAC-SHA256 of a refresh token. */
  refreshDigest(token: string): Buffer;
}

/**
 * Builds a master key of 32 bytes. Each use has a key of its own, derived by HKDF-SHA256 (RFC 5869), so that what one
 * reveals says nothing of the others.
 */
export function masterKey(bytes: Uint8Array): MasterKey {
  if (bytes.length !== 32) throw new RangeError(`a master key has 32 bytes, not ${bytes.length}`);
  const derive = (use: string): Buffer => Buffer.from(hkdfSync('sha256', bytes, '', `mad identity ${use}`, 32));
  const sealing = derive('signing keys');
  const tokens = derive('api tokens');
  const refresh = derive('refresh tokens');
  return {
    seal(plain, aad) {
      const nonce = randomBytes(NONCE_BYTES);
      const cipher = createCipheriv('aes-256-gcm', sealing, nonce).setAAD(Buffer.from(aad));
      return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    },
    open(sealed, aad) {
      const body = Buffer.from(sealed);
      const decipher = createDecipheriv('aes-256-gcm', sealing, body.subarray(0, NONCE_BYTES), {
        authTagLength: TAG_BYTES,
      });
      decipher.setAAD(Buffer.from(aad)).setAuthTag(body.subarray(body.length - TAG_BYTES));
      return Buffer.concat([decipher.update(body.subarray(NONCE_BYTES, body.length - TAG_BYTES)), decipher.final()]);
    },
    tokenDigest: (secret) => createHmac('sha256', tokens).update(secret).digest(),
    refreshDigest: (token) => createHmac('sha256', refresh).update(token).digest(),
  };
}

/** A new secret of 32 random bytes, base64url. */
export function newSecret(): string {
  return randomBytes(32).toString('base64url');
}

/** Compares two digests of the same length in constant time. */
export function sameDigest(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}
