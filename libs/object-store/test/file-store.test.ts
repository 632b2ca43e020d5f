import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { openObjectStore } from '@mad/object-store';
import { objectStoreContract } from './contract.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mad-objects-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

let stores = 0;
objectStoreContract('files', async () => openObjectStore(`${pathToFileURL(folder).href}/store-${++stores}`));

test('makes its folder and leaves no drafts in it', async () => {
  const store = openObjectStore(pathToFileURL(join(folder, 'new folder')).href);
  await store.putIfAbsent('one', Buffer.from('content'));
  expect(await readdir(join(folder, 'new folder', 'drafts'))).toEqual([]);
});

test('deleting a key removes what a dead writer of it left', async () => {
  const root = join(folder, 'died');
  const store = openObjectStore(pathToFileURL(root).href);
  await store.putStreamIfAbsent('one', Readable.from(['content']));
  const [drafts] = await readdir(join(root, 'drafts'));
  await writeFile(join(root, 'drafts', drafts!, 'left'), 'half');
  await store.delete('one');
  expect(await readdir(join(root, 'drafts'))).toEqual([]);
  expect(await store.exists('one')).toBe(false);
});

test.each(['http://localhost/x', 'memory:'])('refuses %s', (url) => {
  expect(() => openObjectStore(url)).toThrow(/file: or s3: URLs/);
});
