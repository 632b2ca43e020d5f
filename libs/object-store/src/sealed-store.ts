import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { LRUCache } from 'lru-cache';
import type { ObjectKeys } from './object-keys.ts';
import { checkKey, InvalidKeyError, type ObjectStore } from './object-store.ts';

/*
 * A sealed object is
 *
 *   "MADOBJ1\0", version of the organization's key (4 bytes), salt (20 random bytes)
 *   pieces: 8 KiB of content, each followed by its tag (16 bytes); the last one is shorter, and may be empty
 *
 * Every piece is AES-256-GCM under a key of the object's own: HKDF (RFC 5869) of the organization's key, over the beginning
 * and the object's name. The nonce is the piece's number. So what is changed, moved to another place or name, left out or
 * cut off does not open, and any part of the content can be read without the rest. After STREAM of Hoang, Reyhanitabar,
 * Rogaway and Vizár (CRYPTO 2015), with the short piece as its mark of the end.
 */

const MAGIC = Buffer.from('MADOBJ1\0');
const BEGINNING_BYTES = 32;
const PLAIN_BYTES = 8 * 1024;
const TAG_BYTES = 16;
const SEALED_BYTES = PLAIN_BYTES + TAG_BYTES;
/** Objects whose own keys are remembered: poses of one object are read one by one. */
const MAX_CIPHERS = 1_000;

/** An object is not what was written under its name, or was sealed under a key that is no more. */
export class ObjectDamagedError extends Error {
  override readonly name = 'ObjectDamagedError';

  constructor(key: string, options?: ErrorOptions) {
    super(`the object ${key} is not what was written there`, options);
  }
}

/** Seals and opens the pieces of one object. */
class ObjectCipher {
  readonly #key: Buffer;
  readonly #name: string;

  constructor(key: Uint8Array, beginning: Buffer, name: string) {
    this.#key = Buffer.from(hkdfSync('sha256', key, beginning, name, 32));
    this.#name = name;
  }

  seal(number: number, plain: Uint8Array): Buffer {
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonceOf(number));
    return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  }

  /** Throws ObjectDamagedError. */
  open(number: number, sealed: Buffer): Buffer {
    const end = sealed.length - TAG_BYTES;
    const decipher = createDecipheriv('aes-256-gcm', this.#key, nonceOf(number), { authTagLength: TAG_BYTES });
    try {
      decipher.setAuthTag(sealed.subarray(Math.max(0, end)));
      return Buffer.concat([decipher.update(sealed.subarray(0, Math.max(0, end))), decipher.final()]);
    } catch (error) {
      throw new ObjectDamagedError(this.#name, { cause: error });
    }
  }
}

function nonceOf(number: number): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64BE(BigInt(number), 4);
  return nonce;
}

/** Content in blocks of `first` bytes, then of `size`, and at the end a shorter one, which may be empty. */
async function* blocksOf(
  content: AsyncIterable<Uint8Array>,
  size: number,
  first: number = size,
): AsyncGenerator<Buffer[]> {
  let rest: Buffer = Buffer.alloc(0);
  let next = first;
  for await (const piece of content) {
    const all = Buffer.concat([rest, piece]);
    const blocks: Buffer[] = [];
    let start = 0;
    for (; start + next <= all.length; next = size) {
      blocks.push(all.subarray(start, start + next));
      start += next;
    }
    rest = all.subarray(start);
    if (blocks.length > 0) yield blocks;
  }
  yield [rest];
}

/**
 * The same store, with everything below `orgs/<organization>/` sealed under that organization's key; other names are
 * refused with InvalidKeyError. `get`, `getRange` and the stream of `stream` fail with ObjectDamagedError where the object
 * is not what was put.
 */
export function sealedStore(store: ObjectStore, keys: ObjectKeys): ObjectStore {
  const ciphers = new LRUCache<string, ObjectCipher>({ max: MAX_CIPHERS });

  async function opener(key: string, beginning: Buffer): Promise<ObjectCipher> {
    const isKnown = beginning.length === BEGINNING_BYTES && beginning.subarray(0, MAGIC.length).equals(MAGIC);
    if (!isKnown) throw new ObjectDamagedError(key);
    const version = beginning.readUInt32BE(MAGIC.length);
    const found = (await keys(organizationOf(key))).find((one) => one.version === version);
    if (found === undefined) throw new ObjectDamagedError(key, { cause: new Error(`there is no key ${version}`) });
    return new ObjectCipher(found.key, beginning, key);
  }

  async function* sealed(key: string, content: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
    const [newest] = await keys(organizationOf(key));
    const beginning = Buffer.concat([MAGIC, Buffer.alloc(4), randomBytes(BEGINNING_BYTES - MAGIC.length - 4)]);
    beginning.writeUInt32BE(newest!.version, MAGIC.length);
    const cipher = new ObjectCipher(newest!.key, beginning, key);
    yield beginning;
    let number = 0;
    for await (const blocks of blocksOf(content, PLAIN_BYTES)) {
      yield Buffer.concat(blocks.map((block) => cipher.seal(number++, block)));
    }
  }

  async function* opened(key: string, content: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
    let cipher: ObjectCipher | undefined;
    let number = 0;
    for await (const blocks of blocksOf(content, SEALED_BYTES, BEGINNING_BYTES)) {
      cipher ??= await opener(key, blocks.shift()!);
      for (const block of blocks) yield cipher.open(number++, block);
    }
  }

  async function cipherOf(key: string): Promise<ObjectCipher> {
    const known = ciphers.get(key);
    if (known !== undefined) return known;
    const cipher = await opener(key, Buffer.from(await store.getRange(key, 0, BEGINNING_BYTES)));
    ciphers.set(key, cipher);
    return cipher;
  }

  const all = async (pieces: AsyncIterable<Buffer>): Promise<Buffer> => Buffer.concat(await Array.fromAsync(pieces));

  return {
    ...store,
    async putIfAbsent(key, content) {
      organizationOf(key);
      return store.putIfAbsent(key, await all(sealed(key, Readable.from([content]))));
    },
    async putStreamIfAbsent(key, content) {
      content.on('error', () => undefined);
      organizationOf(key);
      const pieces = Readable.from(sealed(key, content), { objectMode: false });
      pieces.once('close', () => content.destroy());
      return store.putStreamIfAbsent(key, pieces);
    },
    async get(key) {
      organizationOf(key);
      return all(opened(key, Readable.from([await store.get(key)])));
    },
    async getRange(key, offset, length) {
      organizationOf(key);
      const cipher = await cipherOf(key);
      const first = Math.floor(offset / PLAIN_BYTES);
      const past = Math.ceil((offset + length) / PLAIN_BYTES);
      const place = BEGINNING_BYTES + first * SEALED_BYTES;
      const pieces = Buffer.from(await store.getRange(key, place, (past - first) * SEALED_BYTES));
      const plain: Buffer[] = [];
      for (let start = 0, number = first; start < pieces.length; start += SEALED_BYTES, number += 1) {
        plain.push(cipher.open(number, pieces.subarray(start, start + SEALED_BYTES)));
      }
      const within = offset - first * PLAIN_BYTES;
      return Buffer.concat(plain).subarray(within, within + length);
    },
    async stream(key) {
      organizationOf(key);
      return Readable.from(opened(key, await store.stream(key)), { objectMode: false });
    },
    async delete(key) {
      // What is put under the name after this has another key.
      ciphers.delete(key);
      await store.delete(key);
    },
  };
}

/** Whose an object is, by its name. Throws InvalidKeyError. */
function organizationOf(key: string): string {
  const [root, orgId, ...rest] = checkKey(key).split('/');
  if (root !== 'orgs' || orgId === undefined || rest.length === 0) throw new InvalidKeyError(key);
  return orgId;
}
