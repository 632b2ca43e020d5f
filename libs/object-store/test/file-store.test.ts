import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { openObjectStore } from '@mad/object-store';
import { sleep } from '@mad/process';
import { objectStoreContract } from './contract.ts';

const MIB = 1024 * 1024;
const WRITER = fileURLToPath(new URL('./writer-process.ts', import.meta.url));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mad-objects-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

let stores = 0;
objectStoreContract('files', async () => openObjectStore(`${pathToFileURL(folder).href}/store-${++stores}`));

const storeIn = (root: string) => openObjectStore(pathToFileURL(root).href);
const draftsIn = (root: string): Promise<string[]> => readdir(join(root, 'drafts'));

test('makes its folder, which only its owner reads objects in, and leaves no drafts in it', async () => {
  const root = join(folder, 'new folder');
  const store = storeIn(root);
  await store.putIfAbsent('one', Buffer.from('content'));
  await store.putStreamIfAbsent('two', Readable.from(['content']));
  await store.putStreamIfAbsent('two', Readable.from(['content']));
  const broken = Readable.from(
    (function* () {
      yield 'half';
      throw new Error('the source broke');
    })(),
  );
  await expect(store.putStreamIfAbsent('three', broken)).rejects.toThrow('the source broke');
  expect(await draftsIn(root)).toEqual([]);
  for (const name of ['one', 'two']) expect((await stat(join(root, name))).mode & 0o777).toBe(0o600);
});

test('an object is the very file that was written aside: nothing is copied', async () => {
  const root = join(folder, 'linked');
  const store = storeIn(root);
  let draft = 0;
  const content = Readable.from(
    (async function* () {
      yield 'first';
      for (let names: string[] = []; draft === 0; names = await draftsIn(root).catch((): string[] => [])) {
        if (names[0] !== undefined) draft = (await stat(join(root, 'drafts', names[0]))).ino;
      }
      yield 'last';
    })(),
  );
  expect(await store.putStreamIfAbsent('a/b/one', content)).toBe(true);
  expect(await stat(join(root, 'a/b/one'))).toMatchObject({ ino: draft, nlink: 1 });
});

test('of writers of other content at the same time exactly one is told that it wrote', async () => {
  const root = join(folder, 'raced');
  const store = storeIn(root);
  const WRITERS = 16;
  const contentOf = (writer: number): Buffer => Buffer.alloc(200_000, writer);
  for (let round = 0; round < 5; round += 1) {
    const key = `orgs/a/${round}`;
    const wrote = await Promise.all(
      Array.from({ length: WRITERS }, async (_, writer) =>
        writer % 2 === 0
          ? store.putIfAbsent(key, contentOf(writer))
          : store.putStreamIfAbsent(key, Readable.from([contentOf(writer)])),
      ),
    );
    expect(wrote.filter((one) => one)).toHaveLength(1);
    expect(contentOf(wrote.indexOf(true)).equals(await store.get(key))).toBe(true);
  }
  expect(await draftsIn(root)).toEqual([]);
});

test('a key that is a folder of others is refused and not taken for kept', async () => {
  const store = storeIn(join(folder, 'nested'));
  await store.putIfAbsent('a/b', Buffer.from('content'));
  await expect(store.putIfAbsent('a', Buffer.from('content'))).rejects.toThrow('EEXIST');
});

describe('a process that is killed', () => {
  const LARGE = 96 * MIB;

  /** Puts bytes under `key` in a process of its own; with `stuckAfter`, so many of them and never the rest. */
  const writer = (root: string, key: string, stuckAfter?: number): ChildProcess =>
    spawn(process.execPath, [WRITER, pathToFileURL(root).href, key, String(LARGE), String(stuckAfter ?? '')], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, NODE_OPTIONS: '' },
    });
  const kill = async (process: ChildProcess): Promise<void> => {
    process.kill('SIGKILL');
    if (process.exitCode === null && process.signalCode === null) await once(process, 'exit');
  };

  test('in the middle of a put leaves no object; the next put succeeds, and deleting the key removes the rest', async () => {
    const root = join(folder, 'killed');
    const store = storeIn(root);
    const process = writer(root, 'a/one', LARGE / 2);
    const written = async (): Promise<number> => {
      const [name] = await draftsIn(root).catch((): string[] => []);
      return name === undefined ? 0 : (await stat(join(root, 'drafts', name))).size;
    };
    while ((await written()) < LARGE / 2) await sleep(5);
    await kill(process);
    expect(await store.exists('a/one')).toBe(false);
    expect(await store.putIfAbsent('a/one', Buffer.from('whole'))).toBe(true);
    expect(Buffer.from(await store.get('a/one')).toString()).toBe('whole');
    expect(await draftsIn(root)).toHaveLength(1);
    await store.delete('a/one');
    expect(await draftsIn(root)).toEqual([]);
    expect(await store.exists('a/one')).toBe(false);
  });

  test('as soon as its object is seen has put it there whole', async () => {
    const root = join(folder, 'killed at once');
    const store = storeIn(root);
    for (let round = 0; round < 3; round += 1) {
      const key = `a/${round}`;
      const process = writer(root, key);
      while (!existsSync(join(root, key))) await sleep(1);
      await kill(process);
      expect((await stat(join(root, key))).size).toBe(LARGE);
      expect(await store.putIfAbsent(key, Buffer.from('other'))).toBe(false);
    }
  });
});

test('deleting a key removes drafts as older stores kept them', async () => {
  const root = join(folder, 'older');
  const store = storeIn(root);
  await store.putIfAbsent('one', Buffer.from('content'));
  const drafts = join(root, 'drafts', createHash('sha256').update('one').digest('hex'));
  await mkdir(drafts);
  await writeFile(join(drafts, 'left'), 'half');
  await store.delete('one');
  expect(await draftsIn(root)).toEqual([]);
});

test.each(['http://localhost/x', 'memory:'])('refuses %s', (url) => {
  expect(() => openObjectStore(url)).toThrow(/file: or s3: URLs/);
});
