import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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

test.each(['s3://bucket/prefix', 'http://localhost/x', 'memory:'])('refuses %s', (url) => {
  expect(() => openObjectStore(url)).toThrow(/file: URLs/);
});
