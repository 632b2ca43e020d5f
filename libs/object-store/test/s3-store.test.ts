import crypto, { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { openObjectStore } from '@mad/object-store';
import S3rver from 's3rver';
import { objectStoreContract } from './contract.ts';

const BUCKET = 'objects';
const MIB = 1024 * 1024;

let folder: string;
let storage: S3rver;
let front: Server;
let plainUrl: string;
let conditionalUrl: string;
beforeAll(async () => {
  // The server's own example credentials.
  Object.assign(process.env, { AWS_ACCESS_KEY_ID: 'S3RVER', AWS_SECRET_ACCESS_KEY: 'S3RVER' });
  folder = await mkdtemp(join(tmpdir(), 'mad-s3-'));
  storage = new S3rver({
    port: 0,
    address: '127.0.0.1',
    silent: true,
    directory: folder,
    configureBuckets: [{ name: BUCKET, configs: [] }],
  });
  const { port } = await storage.run();
  plainUrl = `http://127.0.0.1:${port}`;
  front = conditionalFront(port).listen(0, '127.0.0.1');
  await once(front, 'listening');
  conditionalUrl = `http://127.0.0.1:${(front.address() as AddressInfo).port}`;
});
afterAll(async () => {
  front.closeAllConnections();
  front.close();
  await storage.close();
  await rm(folder, { recursive: true, force: true });
});

// The server's page tokens are DES, which OpenSSL has no longer: three times over with one key is the same.
const modern = { createCipheriv: crypto.createCipheriv, createDecipheriv: crypto.createDecipheriv };
const triple = (key: Buffer): Buffer => Buffer.concat([key, key, key]);
beforeAll(() => {
  Object.assign(crypto, {
    createCipheriv: (name: string, key: Buffer, iv: Buffer) =>
      name === 'des' ? modern.createCipheriv('des-ede3-cbc', triple(key), iv) : modern.createCipheriv(name, key, iv),
    createDecipheriv: (name: string, key: Buffer, iv: Buffer) =>
      name === 'des'
        ? modern.createDecipheriv('des-ede3-cbc', triple(key), iv)
        : modern.createDecipheriv(name, key, iv),
  });
});
afterAll(() => {
  Object.assign(crypto, modern);
});

let stores = 0;
const urlOf = (endpoint: string, prefix = `mad/store-${++stores}`): string =>
  `s3://${BUCKET}/${prefix}?${new URLSearchParams({ endpoint, region: 'eu-central-1' }).toString()}`;

objectStoreContract('a bucket whose server ignores conditions', async () => openObjectStore(urlOf(plainUrl)));
objectStoreContract('a bucket whose server keeps conditions', async () => openObjectStore(urlOf(conditionalUrl)));

test('of writers of other content at the same time exactly one is told that it wrote', async () => {
  const store = openObjectStore(urlOf(conditionalUrl));
  const wrote = await Promise.all(
    Array.from({ length: 8 }, async (_, writer) =>
      writer % 2 === 0
        ? store.putIfAbsent('one', Buffer.from(`writer ${writer}`))
        : store.putStreamIfAbsent('one', Readable.from([`writer ${writer}`])),
    ),
  );
  expect(wrote.filter((one) => one)).toHaveLength(1);
  expect(Buffer.from(await store.get('one')).toString()).toBe(`writer ${wrote.indexOf(true)}`);
});

describe('content of several parts', () => {
  const PIECES = 40;
  const content = (): Readable =>
    Readable.from(
      (function* () {
        for (let piece = 0; piece < PIECES; piece++) yield Buffer.alloc(MIB, piece);
      })(),
    );
  const digest = async (from: Readable): Promise<string> => {
    const hash = createHash('sha256');
    for await (const chunk of from) hash.update(chunk as Buffer);
    return hash.digest('hex');
  };

  test('comes back as it was', async () => {
    const store = openObjectStore(urlOf(conditionalUrl));
    expect(await store.putStreamIfAbsent('large', content())).toBe(true);
    expect(await digest(await store.stream('large'))).toBe(await digest(content()));
    expect(Buffer.from(await store.getRange('large', 17 * MIB - 1, 2))).toEqual(Buffer.from([16, 17]));
  });

  test('that breaks in the second part leaves no object, and says what broke', async () => {
    const store = openObjectStore(urlOf(plainUrl));
    const broken = Readable.from(
      (function* () {
        for (let piece = 0; piece < 20; piece++) yield Buffer.alloc(MIB, piece);
        throw new Error('the source broke late');
      })(),
    );
    await expect(store.putStreamIfAbsent('large', broken)).rejects.toThrow('the source broke late');
    expect(await store.exists('large')).toBe(false);
  });
});

test('lists more objects than one page of a server holds', async () => {
  const store = openObjectStore(urlOf(plainUrl));
  const keys = Array.from({ length: 1_003 }, (_, index) => `many/${String(index).padStart(4, '0')}`);
  for (let from = 0; from < keys.length; from += 50) {
    await Promise.all(keys.slice(from, from + 50).map((key) => store.putIfAbsent(key, Buffer.from(key))));
  }
  expect(await store.list('many')).toEqual(keys);
  expect(await Array.fromAsync(store.walk('many'))).toHaveLength(keys.length);
});

test('two prefixes of one bucket do not see each other', async () => {
  const [one, other, root] = ['a', 'a2', ''].map((prefix) => openObjectStore(urlOf(plainUrl, prefix)));
  await one!.putIfAbsent('x/one', Buffer.from('one'));
  expect(await other!.exists('x/one')).toBe(false);
  expect(await other!.list('x')).toEqual([]);
  expect(await root!.list('a/x')).toEqual(['a/x/one']);
});

test('what the server refuses is thrown and not taken for an absent object', async () => {
  const store = openObjectStore(`s3://no-such-bucket/x?${new URLSearchParams({ endpoint: plainUrl }).toString()}`);
  await expect(store.list('x')).rejects.toThrow(/bucket does not exist/);
  await expect(store.get('x/one')).rejects.toThrow(/bucket does not exist/);
  await expect(store.putIfAbsent('x/one', Buffer.from('x'))).rejects.toThrow(/bucket does not exist/);
});

test.each([
  ['s3://key:secret@bucket/x', /no credentials/],
  ['s3:///x', /names a bucket/],
  ['s3://bucket:9000/x', /names a bucket/],
  ['s3://bucket/x?acl=public', /no parameter acl/],
  ['s3://bucket/x?endpoint=127.0.0.1', /endpoint/],
  ['s3://bucket/x?endpoint=ftp://host', /endpoint/],
  ['s3://bucket/a b', /not a key/],
])('refuses %s', (url, why) => {
  expect(() => openObjectStore(url)).toThrow(why);
});

/** What the storage behind it lacks: conditional writes, one after the other, as Amazon's and newer servers have them. */
function conditionalFront(port: number): Server {
  let turn: Promise<unknown> = Promise.resolve();
  const present = (path: string): Promise<boolean> =>
    new Promise((resolve, reject) => {
      request({ port, path: path.split('?', 1)[0], method: 'HEAD' }, (answer) => {
        answer.resume();
        // Without a signature: what is there is forbidden, what is not there is not.
        resolve(answer.statusCode !== 404);
      })
        .on('error', reject)
        .end();
    });
  const pass = ({ url, method, headers }: IncomingMessage, body: Buffer, into: ServerResponse): Promise<void> =>
    new Promise((resolve, reject) => {
      request({ port, path: url, method, headers }, (answer) => {
        into.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(into).on('close', resolve);
      })
        .on('error', reject)
        .end(body);
    });
  const answer = async (asked: IncomingMessage, body: Buffer, into: ServerResponse): Promise<void> => {
    if (asked.headers['if-none-match'] !== '*') return pass(asked, body, into);
    const mine = turn.then(async () => {
      if (!(await present(asked.url!))) return pass(asked, body, into);
      into.writeHead(412, { 'content-type': 'application/xml' });
      into.end('<Error><Code>PreconditionFailed</Code><Message>It is there already</Message></Error>');
    });
    turn = mine.catch(() => undefined);
    return mine;
  };
  return createServer((asked, into) => {
    const body: Buffer[] = [];
    asked.on('data', (chunk: Buffer) => body.push(chunk));
    asked.on('end', () => {
      answer(asked, Buffer.concat(body), into).catch((error: unknown) => into.destroy(error as Error));
    });
  });
}
