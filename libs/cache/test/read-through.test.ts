import { expect, test } from '@jest/globals';
import { createMetrics } from '@mad/process';
import { memoryCache, readThrough, type Cache } from '../src/index.ts';

/** A load that ends when it is told to. */
function heldLoad() {
  const waiting: ((value: string) => void)[] = [];
  const load = (): Promise<string> => new Promise((settle) => waiting.push(settle));
  return { load, waiting };
}

const soon = (): Promise<void> => new Promise((settle) => setImmediate(settle));

test('a miss loads and keeps, a hit does not load; both are counted', async () => {
  const metrics = createMetrics('test');
  const asked: string[] = [];
  const load = async (key: string): Promise<string> => `${key}${asked.push(key)}`;
  const values = readThrough(memoryCache(), { name: 'things', ttlMs: 60_000, load, metrics });
  expect([await values.get('a'), await values.get('a'), await values.get('b')]).toEqual(['a1', 'a1', 'b2']);
  await values.forget('a');
  expect(await values.get('a')).toBe('a3');
  expect(asked).toEqual(['a', 'b', 'a']);
  const text = await metrics.text();
  expect(text).toMatch(/cache_requests_total\{[^}]*outcome="miss"[^}]*\} 3/);
  expect(text).toMatch(/cache_requests_total\{[^}]*outcome="hit"[^}]*\} 1/);
});

test('callers who ask at the same time share one load, and its failure; the next one tries again', async () => {
  let loads = 0;
  const load = async (): Promise<string> => {
    loads += 1;
    await soon();
    if (loads === 1) throw new Error('the source is away');
    return 'value';
  };
  const values = readThrough(memoryCache(), { name: 'v', ttlMs: 60_000, load });
  const together = await Promise.allSettled([values.get('a'), values.get('a'), values.get('a')]);
  expect(together.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
  expect(loads).toBe(1);
  expect(await values.get('a')).toBe('value');
});

test('what was loaded before a change is not kept after it', async () => {
  const { load, waiting } = heldLoad();
  const values = readThrough(memoryCache(), { name: 'v', ttlMs: 60_000, load });
  const before = values.get('a');
  await soon();
  await values.forget('a');
  const after = values.get('a');
  await soon();
  waiting[0]!('old');
  expect(await before).toBe('old');
  waiting[1]!('new');
  expect(await after).toBe('new');
  expect(await values.get('a')).toBe('new');
});

test('null is a value; undefined is none', async () => {
  const answers: (null | undefined)[] = [undefined, null];
  let loads = 0;
  const values = readThrough(memoryCache(), { name: 'v', ttlMs: 60_000, load: async () => answers[loads++] });
  expect([await values.get('a'), await values.get('a'), await values.get('a')]).toEqual([undefined, null, null]);
  expect(loads).toBe(2);
});

test('a cache that fails in every method costs loads only, and is counted', async () => {
  const fail = (): Promise<never> => Promise.reject(new Error('away'));
  const broken: Cache = { get: fail, set: fail, delete: fail, close: fail };
  const metrics = createMetrics('test');
  const values = readThrough(broken, { name: 'v', ttlMs: 1000, load: async () => 'loaded', metrics });
  expect([await values.get('a'), await values.get('a')]).toEqual(['loaded', 'loaded']);
  await values.forget('a');
  expect(await metrics.text()).toMatch(/outcome="error"[^}]*\} 2/);
});
