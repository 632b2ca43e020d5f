import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { openCache, readThrough, type OpenCache } from '../src/index.ts';
import { redisMissing, startRedis, type RedisServer } from './redis-server.ts';

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
});
