import type { Readable } from 'node:stream';

/**
 * Immutable objects under keys like `orgs/<id>/artifacts/<sha256>`. An object is there whole or not at all; the same key
 * never gets other content. Keys are checked: `InvalidKeyError` for one that is not of letters, digits, `.`, `_`, `-`
 * in segments parted by `/`.
 */
export interface ObjectStore {
  /**
   * Keeps the content unless the key has one already. True when it was written by this call. What has the key is on the disk
   * when this resolves.
   */
  putIfAbsent(key: string, content: Uint8Array): Promise<boolean>;
  /** The same for content of any size, piece by piece. Rejects with what `content` fails with, and then nothing is kept. */
  putStreamIfAbsent(key: string, content: Readable): Promise<boolean>;
  /** The whole content. Throws ObjectNotFoundError. */
  get(key: string): Promise<Uint8Array>;
  /** `length` bytes of the content from `offset` on, fewer where it ends before. Throws ObjectNotFoundError. */
  getRange(key: string, offset: number, length: number): Promise<Uint8Array>;
  /** The content piece by piece. Throws ObjectNotFoundError. */
  stream(key: string): Promise<Readable>;
  exists(key: string): Promise<boolean>;
  /** The keys right below a folder like `metadata`, sorted. Empty when there is no such folder. */
  list(folder: string): Promise<string[]>;
  /** All keys below a folder, however deep, in no order; what is put or removed meanwhile may be among them or not. */
  walk(folder: string): AsyncIterable<string>;
  /** Removes the object, and what writers of it that died left behind; nothing happens when there is none. */
  delete(key: string): Promise<void>;
}

/** No object has this key. */
export class ObjectNotFoundError extends Error {
  override readonly name = 'ObjectNotFoundError';
  readonly key: string;

  constructor(key: string, options?: ErrorOptions) {
    super(`there is no object ${key}`, options);
    this.key = key;
  }
}

/** The key could reach outside the store, or means different things to different stores. */
export class InvalidKeyError extends Error {
  override readonly name = 'InvalidKeyError';

  constructor(key: string) {
    super(`not a key of an object: ${JSON.stringify(key.slice(0, 200))}`);
  }
}

/** Stores with flat names allow 1,024 bytes; some room is left for a bucket's prefix. */
const MAX_KEY_LENGTH = 512;
const SEGMENT = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/** Returns the key, or throws InvalidKeyError. A segment never begins with a dot: `..` does not exist. */
export function checkKey(key: string): string {
  if (key.length > MAX_KEY_LENGTH || !key.split('/').every((segment) => SEGMENT.test(segment))) {
    throw new InvalidKeyError(key);
  }
  return key;
}
