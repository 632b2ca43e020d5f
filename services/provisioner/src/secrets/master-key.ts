import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** AES-256-GCM: nonce, ciphertext, tag. `aad` names what is sealed, so that it cannot be put in another's place. */
export function seal(key: Uint8Array, plain: Uint8Array, aad: string): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(aad));
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/** Opens what `seal` made with the same `aad`. Throws when either was changed. */
export function open(key: Uint8Array, sealed: Uint8Array, aad: string): Buffer {
  const body = Buffer.from(sealed);
  const nonce = body.subarray(0, NONCE_BYTES);
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(Buffer.from(aad)).setAuthTag(body.subarray(body.length - TAG_BYTES));
  return Buffer.concat([decipher.update(body.subarray(NONCE_BYTES, body.length - TAG_BYTES)), decipher.final()]);
}

/** Something sealed under the master key of a version. */
export interface Sealed {
  sealed: Buffer;
  version: number;
}

/** The installation's keys: the newest seals, each opens what it sealed. */
export interface MasterKeys {
  /** The version that seals. */
  readonly newest: number;
  /** All that are configured. */
  readonly versions: readonly number[];
  seal(plain: Uint8Array, aad: string): Sealed;
  /** Throws when the version is not configured, or the content or `aad` was changed. */
  open(sealed: Sealed, aad: string): Buffer;
}

/**
 * Reads `PROVISIONER_MASTER_KEY`: 32 bytes in base64 (that is version 1), or several as `2:<base64>,1:<base64>` while
 * the key is being changed. Throws an Error that does not repeat the value.
 */
export function parseMasterKeys(text: string): MasterKeys {
  const keys = new Map<number, Buffer>();
  for (const part of text.split(',')) {
    const [, versionText, encoded] = /^(?:([1-9]\d{0,8}):)?([A-Za-z0-9+/_=-]+)$/.exec(part.trim()) ?? [];
    const key = Buffer.from(encoded ?? '', 'base64');
    if (key.length !== KEY_BYTES) throw new Error('must be 32 bytes in base64, or such keys as 2:…,1:…');
    const version = Number(versionText ?? '1');
    if (keys.has(version)) throw new Error(`names version ${version} twice`);
    keys.set(version, key);
  }
  const newest = Math.max(...keys.keys());
  return {
    newest,
    versions: [...keys.keys()],
    seal: (plain, aad) => ({ sealed: seal(keys.get(newest)!, plain, aad), version: newest }),
    open({ sealed, version }, aad) {
      const key = keys.get(version);
      if (key === undefined) throw new Error(`the master key of version ${version} is not configured`);
      return open(key, sealed, aad);
    },
  };
}
