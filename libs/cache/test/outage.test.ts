import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  memoryPubSub,
  openBroadcast,
  openCache,
  readThrough,
  redisProbe,
  redisPubSub,
  type OpenCache,
} from '../src/index.ts';
import { Redis } from 'ioredis';
import { redisMissing, startRedis, type RedisServer } from '@mad/testing';

const missing = redisMissing();
const withRedis = missing === undefined ? describe : describe.skip;

/** Nothing listens there. */
const NOWHERE = 'redis://127.0.0.1:9';

async function until(condition: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error('it did not happen in 10 s');
    await new Promise((settle) => setTimeout(settle, 25));
  }
}

test('within one process nobody else is heard', async () => {
  const pubSub = memoryPubSub();
  await pubSub.subscribe('c', () => undefined);
  expect(pubSub.live()).toBe(false);
});

test('a Redis that was never there: opening, reading and closing work, and quickly', async () => {
  const began = Date.now();
  const opened = await openCache({ url: NOWHERE });
  const values = readThrough(opened.cache, { name: 'v', ttlMs: 1000, load: async (key) => `loaded ${key}` });
  expect(await values.get('a')).toBe('loaded a');
  await values.forget('a');
  await expect(opened.cache.get('a')).rejects.toThrow();
  await expect(opened.pubSub.publish('c', 1)).rejects.toThrow();
  const end = await opened.pubSub.subscribe('c', () => undefined);
  await end();
  await opened.close();
  expect(Date.now() - began).toBeLessThan(2_000);
});

withRedis(`an outage${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  let server: RedisServer;
  let opened: OpenCache;

  beforeAll(async () => {
    server = await startRedis();
    opened = await openCache({ url: server.url });
  });

  afterAll(async () => {
    await opened?.close();
    await server?.stop();
  });

  test('costs loads and nothing else, and ends by itself with subscriptions back', async () => {
    let loads = 0;
    const values = readThrough(opened.cache, { name: 'v', ttlMs: 60_000, load: async () => (loads += 1) });
    const heard: unknown[] = [];
    await opened.pubSub.subscribe('c', (message) => heard.push(message));
    expect([await values.get('a'), await values.get('a')]).toEqual([1, 1]);

    await server.stop();
    await until(() =>
      opened.cache.get('a').then(
        () => false,
        () => true,
      ),
    );
    const began = Date.now();
    expect([await values.get('a'), await values.get('a')]).toEqual([2, 3]);
    expect(Date.now() - began).toBeLessThan(600);

    await server.start();
    await until(() =>
      opened.cache.get('a').then(
        () => true,
        () => false,
      ),
    );
    expect([await values.get('a'), await values.get('a')]).toEqual([4, 4]);
    await until(async () => {
      await opened.pubSub.publish('c', 'again').catch(() => undefined);
      return heard.includes('again');
    });
  });

  test('a server that hangs: what is sent fails soon, nothing waits in line, and it is back when it answers', async () => {
    const pubSub = await redisPubSub(server.url);
    const heard: unknown[] = [];
    await pubSub.subscribe('hung', (message) => heard.push(message));
    server.freeze();
    try {
      for (let round = 0; round < 4; round += 1) {
        const began = Date.now();
        const sent = await Promise.allSettled(
          Array.from({ length: 500 }, (_, n) => pubSub.publish('hung', `lost ${n}`)),
        );
        expect(sent.every(({ status }) => status === 'rejected')).toBe(true);
        expect(Date.now() - began).toBeLessThan(1_500);
        await new Promise((settle) => setTimeout(settle, 300));
      }
      await expect(opened.cache.get('a')).rejects.toThrow();
    } finally {
      server.thaw();
    }
    await until(async () => {
      await pubSub.publish('hung', 'back').catch(() => undefined);
      return heard.includes('back');
    });
    await pubSub.close();
  });

  test('a subscription asked for during an outage is there after it', async () => {
    await server.stop();
    const pubSub = await redisPubSub(server.url);
    const heard: unknown[] = [];
    await pubSub.subscribe('early', (message) => heard.push(message));
    expect(pubSub.live()).toBe(false);
    await server.start();
    await until(async () => {
      await pubSub.publish('early', 1).catch(() => undefined);
      return heard.length > 0;
    });
    expect(pubSub.live()).toBe(true);
    await pubSub.close();
  });

  test('who listens knows whether others are heard', async () => {
    const pubSub = await redisPubSub(server.url);
    expect(pubSub.live()).toBe(false);
    await pubSub.subscribe('c', () => undefined);
    expect(pubSub.live()).toBe(true);
    await server.stop();
    await until(async () => !pubSub.live());
    await server.start();
    await until(async () => pubSub.live());
    await pubSub.close();
  });

  test('what others publish by mistake disturbs nobody', async () => {
    const pubSub = await redisPubSub(server.url);
    const hints: unknown[] = [];
    const broadcast = await openBroadcast(pubSub, 'hints', (hint) => hints.push(hint));
    const stranger = new Redis(server.url);
    for (const text of ['{"', 'null', '7', '[]', '{"hint":1}', '{"from":"x","hint":"heard"}']) {
      await stranger.publish('mad:hints', text);
    }
    broadcast.tell('one of our own');
    await until(async () => hints.length > 0);
    await new Promise((settle) => setTimeout(settle, 50));
    expect(hints).toEqual(['heard']);
    stranger.disconnect();
    await broadcast.close();
    await pubSub.close();
  });

  test('a probe tells milliseconds, and fails soon while there is no answer', async () => {
    const probe = redisProbe(server.url);
    expect(await probe.ping()).toBeGreaterThan(0);
    server.freeze();
    const began = Date.now();
    await expect(probe.ping()).rejects.toThrow();
    expect(Date.now() - began).toBeLessThan(500);
    server.thaw();
    await until(() =>
      probe.ping().then(
        () => true,
        () => false,
      ),
    );
    probe.close();
  });
});
