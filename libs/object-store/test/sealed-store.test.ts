import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  InvalidKeyError,
  ObjectDamagedError,
  openObjectStore,
  sealedStore,
  type ObjectKey,
  type ObjectStore,
} from '@mad/object-store';
import fc from 'fast-check';
import { objectStoreContract } from './contract.ts';

const PIECE = 8 * 1024;

let folder: string;
let stores = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mad-sealed-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A store whose organizations' keys are in `keys`; one that has none gets its first. */
function store(keys = new Map<string, ObjectKey[]>()): { store: ObjectStore; file: (key: string) => string } {
  const root = join(folder, `store-${++stores}`);
  const keysOf = async (orgId: string): Promise<ObjectKey[]> => {
    if (!keys.has(orgId)) keys.set(orgId, [{ version: 1, key: randomBytes(32) }]);
    return keys.get(orgId)!;
  };
  return { store: sealedStore(openObjectStore(pathToFileURL(root).href), keysOf), file: (key) => join(root, key) };
}

objectStoreContract('sealed files', async () => store().store);

test('nothing of the content is on the disk, and the same content is never the same twice', async () => {
  const { store: sealed, file } = store();
  const content = Buffer.from('CC(=O)Oc1ccccc1C(=O)O '.repeat(2_000));
  for (const key of ['orgs/a/x/one', 'orgs/a/x/two']) await sealed.putIfAbsent(key, content);
  await sealed.putStreamIfAbsent('orgs/a/x/three', Readable.from([content]));
  const files = await Promise.all(['one', 'two', 'three'].map((name) => readFile(file(`orgs/a/x/${name}`))));
  for (const bytes of files) expect(bytes.includes('c1ccccc1')).toBe(false);
  expect(new Set(files.map((bytes) => bytes.subarray(32).toString('hex'))).size).toBe(3);
});

test('content of any size in pieces of any size is given back, and so is any part of it', async () => {
  const sizes = fc.oneof(
    fc.nat(3 * PIECE),
    fc.constantFrom(0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 4 * PIECE - 16),
  );
  await fc.assert(
    fc.asyncProperty(sizes, fc.integer({ min: 1, max: 20_000 }), sizes, sizes, async (size, step, offset, length) => {
      const { store: sealed } = store();
      const content = randomBytes(size);
      const pieces = Array.from({ length: Math.ceil(size / step) }, (_, index) =>
        content.subarray(index * step, (index + 1) * step),
      );
      await sealed.putStreamIfAbsent('orgs/a/x', Readable.from(pieces));
      expect((await buffer(await sealed.stream('orgs/a/x'))).equals(content)).toBe(true);
      const part = Buffer.from(await sealed.getRange('orgs/a/x', offset, length));
      expect(part.equals(content.subarray(offset, offset + length))).toBe(true);
    }),
    { numRuns: 60 },
  );
});

describe('what is not what was put', () => {
  const KEY = 'orgs/a/poses/j/o';
  const content = randomBytes(3 * PIECE);

  async function changed(change: (bytes: Buffer) => Buffer): Promise<ObjectStore> {
    const { store: sealed, file } = store();
    await sealed.putIfAbsent(KEY, content);
    await writeFile(file(KEY), change(await readFile(file(KEY))));
    return sealed;
  }

  const flipped = (at: number) => (bytes: Buffer) => {
    bytes[at]! ^= 1;
    return bytes;
  };
  const STORED = PIECE + 16;

  test.each<[string, (bytes: Buffer) => Buffer]>([
    ['another format', flipped(0)],
    ['another version of the key', flipped(11)],
    ['another salt', flipped(20)],
    ['a changed first byte', flipped(32)],
    ['a changed tag', flipped(32 + STORED - 1)],
    ['a changed last byte', (bytes) => flipped(bytes.length - 1)(bytes)],
    ['nothing', () => Buffer.alloc(0)],
    ['a part of the beginning', (bytes) => bytes.subarray(0, 20)],
    ['the beginning alone', (bytes) => bytes.subarray(0, 32)],
    ['an end that is cut off within a piece', (bytes) => bytes.subarray(0, bytes.length - 5)],
    ['an end that is cut off between two pieces', (bytes) => bytes.subarray(0, 32 + 2 * STORED)],
    ['an end without its mark', (bytes) => bytes.subarray(0, 32 + 3 * STORED)],
    ['more at the end', (bytes) => Buffer.concat([bytes, Buffer.alloc(16)])],
    [
      'pieces in another order',
      (bytes) =>
        Buffer.concat([
          bytes.subarray(0, 32),
          bytes.subarray(32 + STORED, 32 + 2 * STORED),
          bytes.subarray(32, 32 + STORED),
          bytes.subarray(32 + 2 * STORED),
        ]),
    ],
    ['a piece left out', (bytes) => Buffer.concat([bytes.subarray(0, 32 + STORED), bytes.subarray(32 + 2 * STORED)])],
    ['content that nobody sealed', () => content],
  ])('is refused: %s', async (_, change) => {
    const sealed = await changed(change);
    await expect(sealed.get(KEY)).rejects.toThrow(ObjectDamagedError);
    await expect(sealed.stream(KEY).then(buffer)).rejects.toThrow(ObjectDamagedError);
  });

  test('is refused in the part where it is, and the rest is given', async () => {
    const sealed = await changed(flipped(32 + STORED + 7));
    expect(Buffer.from(await sealed.getRange(KEY, 10, 100)).equals(content.subarray(10, 110))).toBe(true);
    await expect(sealed.getRange(KEY, PIECE - 10, 100)).rejects.toThrow(ObjectDamagedError);
  });

  test.each(['orgs/a/poses/j/other', 'orgs/b/poses/j/o'])('is refused under another name: %s', async (other) => {
    const key = randomBytes(32);
    const keys = new Map(['a', 'b'].map((orgId) => [orgId, [{ version: 1, key }]]));
    const { store: sealed, file } = store(keys);
    await sealed.putIfAbsent(KEY, content);
    await mkdir(dirname(file(other)), { recursive: true });
    await copyFile(file(KEY), file(other));
    await expect(sealed.get(other)).rejects.toThrow(ObjectDamagedError);
  });
});

test('a new key is for what is put from then on; without its key an object is lost', async () => {
  const first = { version: 1, key: randomBytes(32) };
  const keys = new Map<string, ObjectKey[]>([['a', [first]]]);
  const { store: sealed } = store(keys);
  await sealed.putIfAbsent('orgs/a/old', Buffer.from('old'));
  const second = { version: 2, key: randomBytes(32) };
  keys.set('a', [second, first]);
  await sealed.putIfAbsent('orgs/a/new', Buffer.from('new'));
  expect(Buffer.from(await sealed.get('orgs/a/old')).toString()).toBe('old');
  keys.set('a', [second]);
  expect(Buffer.from(await sealed.get('orgs/a/new')).toString()).toBe('new');
  await expect(sealed.get('orgs/a/old')).rejects.toThrow(ObjectDamagedError);
});

test('nothing is kept while no key is to be had, and the reason is told', async () => {
  const plain = openObjectStore(pathToFileURL(join(folder, `store-${++stores}`)).href);
  const sealed = sealedStore(plain, () => Promise.reject(new Error('nobody answers')));
  await expect(sealed.putIfAbsent('orgs/a/x', Buffer.from('x'))).rejects.toThrow('nobody answers');
  await expect(sealed.putStreamIfAbsent('orgs/a/x', Readable.from([Buffer.from('x')]))).rejects.toThrow(
    'nobody answers',
  );
  expect(await plain.exists('orgs/a/x')).toBe(false);
});

test.each(['metadata/keys', 'orgs/a', 'orgs'])('an object of no organization is refused: %s', async (key) => {
  const { store: sealed } = store();
  await expect(sealed.putIfAbsent(key, Buffer.from('x'))).rejects.toThrow(InvalidKeyError);
  await expect(sealed.get(key)).rejects.toThrow(InvalidKeyError);
});
