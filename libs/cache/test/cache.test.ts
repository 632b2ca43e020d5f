import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  memoryCache,
  memoryPubSub,
  openCache,
  readThrough,
  redisCache,
  redisPubSub,
  type Cache,
  type PubSub,
} from '../src/index.ts';
import { redisMissing, startRedis, type RedisServer } from '@mad/testing';

const wait = (ms: number): Promise<void> => new Promise((settle) => setTimeout(settle, ms));

/** What every pair of adapters must do. `open` is asked twice: two processes that share a store, or one with itself. */
function contract(open: () => Promise<{ cache: Cache; pubSub: PubSub }>): void {
  let cache: Cache;
  let pubSub: PubSub;

  beforeAll(async () => {
    ({ cache, pubSub } = await open());
  });

  afterAll(async () => {
    await cache?.close();
    await pubSub?.close();
  });

  test.each([
    ['an object', { a: [1, 'two', null, { deep: true }] }],
    ['null', null],
    ['false', false],
    ['zero', 0],
    ['an empty text', ''],
    ['any characters', 'Ünïcödé \u0000 😀'],
    ['bytes', Uint8Array.of(0, 1, 255, 10)],
    ['no bytes', new Uint8Array()],
  ])('%s comes back as it went in', async (_what, value) => {
    await cache.set('value', value, 60_000);
    expect(await cache.get('value')).toEqual(value);
  });

  test('what was never set, was deleted or is over its time is undefined', async () => {
    expect(await cache.get('never')).toBeUndefined();
    await cache.set('a', 1, 60_000);
    await cache.set('b', 2, 60_000);
    await cache.delete('a', 'b', 'never');
    await cache.delete();
    expect([await cache.get('a'), await cache.get('b')]).toEqual([undefined, undefined]);
    await cache.set('short', 1, 1_000);
    expect(await cache.get('short')).toBe(1);
    await wait(1_100);
    expect(await cache.get('short')).toBeUndefined();
  });

  test('the last value counts, and its time', async () => {
    await cache.set('again', 'first', 30);
    await cache.set('again', 'second', 60_000);
    await wait(60);
    expect(await cache.get('again')).toBe('second');
  });

  test('what comes out is a copy', async () => {
    const value = { list: [1] };
    await cache.set('copy', value, 60_000);
    value.list.push(2);
    const out = await cache.get<{ list: number[] }>('copy');
    out!.list.push(3);
    expect(await cache.get('copy')).toEqual({ list: [1] });
  });

  test('keys are taken as they are', async () => {
    for (const key of ['a b', 'a\r\nDEL x', 'ключ', '*', '']) {
      await cache.set(key, key, 60_000);
      expect(await cache.get(key)).toBe(key);
    }
  });

  test('values without an end and values that are no JSON are refused', async () => {
    for (const ttl of [0, -1, Number.NaN]) await expect(cache.set('x', 1, ttl)).rejects.toThrow(RangeError);
    await expect(cache.set('x', undefined, 1000)).rejects.toThrow(TypeError);
    expect(await cache.get('x')).toBeUndefined();
  });

  test('a message reaches every subscriber of its channel, in order, until it ends', async () => {
    const received: [string, unknown][] = [];
    const first = await pubSub.subscribe('news', (message) => received.push(['first', message]));
    const second = await pubSub.subscribe('news', (message) => received.push(['second', message]));
    const other = await pubSub.subscribe('other', (message) => received.push(['other', message]));
    await pubSub.publish('news', { n: 1 });
    await pubSub.publish('news', { n: 2 });
    await pubSub.publish('nobody', { n: 3 });
    await wait(50);
    expect(received.filter(([who]) => who === 'first')).toEqual([
      ['first', { n: 1 }],
      ['first', { n: 2 }],
    ]);
    expect(received).toHaveLength(4);
    await first();
    await pubSub.publish('news', null);
    await wait(50);
    expect(received.slice(4)).toEqual([['second', null]]);
    await second();
    await first();
    await pubSub.publish('news', 'unheard');
    await wait(50);
    expect(received).toHaveLength(5);
    await other();
  });
}

describe('in memory', () => {
  contract(async () => ({ cache: memoryCache(), pubSub: memoryPubSub() }));

  test('the least used values make room', async () => {
    const small = memoryCache({ maxBytes: 100 });
    for (let i = 0; i < 10; i += 1) {
      await small.set(`k${i}`, 'x'.repeat(20), 60_000);
      await small.get('k0');
    }
    expect(await small.get('k0')).toBeDefined();
    expect(await small.get('k1')).toBeUndefined();
    expect(await small.get('k9')).toBeDefined();
  });

  test('no URL means memory', async () => {
    const opened = await openCache();
    await opened.cache.set('a', 1, 1000);
    expect(await opened.cache.get('a')).toBe(1);
    await opened.close();
  });
});

const given = process.env['REDIS_URL'];
const missing = given === undefined ? redisMissing() : undefined;
const withRedis = missing === undefined ? describe : describe.skip;

withRedis(`in Redis${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  let server: RedisServer | undefined;
  const prefix = `test-${process.pid}:`;

  beforeAll(async () => {
    if (given === undefined) server = await startRedis();
  });

  const url = (): string => given ?? server!.url;
  contract(async () => ({ cache: await redisCache(url(), { prefix }), pubSub: await redisPubSub(url(), { prefix }) }));

  afterAll(async () => {
    await server?.stop();
  });

  test('a value dropped by one process is dropped for all: no other reads it again', async () => {
    const processes = [await redisCache(url(), { prefix }), await redisCache(url(), { prefix })];
    let version = 1;
    const [one, other] = processes.map((cache) =>
      readThrough(cache, { name: 'dropped', ttlMs: 60_000, load: async () => version }),
    );
    expect([await one!.get('k'), await other!.get('k')]).toEqual([1, 1]);
    version = 2;
    expect(await other!.get('k')).toBe(1);
    await one!.forget('k');
    expect([await other!.get('k'), await one!.get('k')]).toEqual([2, 2]);
    await Promise.all(processes.map((cache) => cache.close()));
  });

  test('two processes share values and messages; another system does not', async () => {
    const [ours, same, foreign] = [
      await redisCache(url(), { prefix }),
      await redisCache(url(), { prefix }),
      await redisCache(url()),
    ];
    await ours.set('shared', 1, 60_000);
    expect([await same.get('shared'), await foreign.get('shared')]).toEqual([1, undefined]);
    const [speaker, listener] = [await redisPubSub(url(), { prefix }), await redisPubSub(url(), { prefix })];
    const heard = new Promise(
      (settle) => void listener.subscribe('c', settle).then(() => speaker.publish('c', 'hello')),
    );
    expect(await heard).toBe('hello');
    await Promise.all([ours, same, foreign, speaker, listener].map((opened) => opened.close()));
  });
});
