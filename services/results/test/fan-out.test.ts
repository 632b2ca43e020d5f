import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createLogger, createMetrics, SECOND_MS, sleep } from '@mad/process';
import { redisMissing, startRedis, type RedisServer } from '@mad/testing';
import { callsSoFar } from './support/calls.ts';
import { bearer, openWorld, similarity, type Organization, type World } from './support/world.ts';

/** Rows are looked at every second: a watcher that is woken sees a change far sooner than one that looks by itself. */
const WOKEN_MS = 250;

const missing = redisMissing();
const withRedis = missing === undefined ? describe : describe.skip;

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

async function until(what: string, condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 20_000; !condition(); await sleep(10)) {
    if (Date.now() > end) throw new Error(`did not happen: ${what}`);
  }
}

/** A job with one task execution per item, watched at another process of results than the one that runs it. */
async function watched(world: World, org: Organization, items: number) {
  const { jobRuns } = await world.another();
  const smiles = Array.from({ length: items }, (_, i) => `${'C'.repeat(i + 1)}O`);
  const made = await world.materialize(org, { smiles, plans: [similarity({ chunkSize: 1 })] });
  const stop = new AbortController();
  const seen: number[] = [];
  const failures: unknown[] = [];
  const query = { orgId: org.orgId, jobId: made.jobId };
  const watching = (async () => {
    for await (const { events } of jobRuns.watchJob(query, { ...bearer(org.token), signal: stop.signal })) {
      seen.push(...events.map(({ seqNo }) => Number(seqNo)));
    }
  })().catch((error: unknown) => {
    if (!stop.signal.aborted) failures.push(error);
  });
  await until('the watcher sees the job', () => seen.length > 0);
  const ids = made.runnable.map(({ taskExecutionId }) => taskExecutionId);
  let next = 0;
  return {
    seen,
    failures,
    /** Starts so many executions, one after the other; milliseconds until the watcher saw each. */
    async start(count: number): Promise<number[]> {
      const latencies: number[] = [];
      for (let n = 0; n < count; n += 1) {
        const before = seen.length;
        // At another point of the watcher's second each time.
        await sleep(37 * (n % 5));
        const began = performance.now();
        await world.start(org, ids[next++]!);
        await until('the watcher sees the change', () => seen.length > before);
        latencies.push(performance.now() - began);
      }
      return latencies;
    },
    async end() {
      stop.abort();
      await watching;
    },
  };
}

test('without Redis a watcher at another process sees every change by looking', async () => {
  const world = await openWorld();
  try {
    const watch = await watched(world, await world.organization(), 3);
    await watch.start(3);
    await watch.end();
    expect(watch.failures).toEqual([]);
    expect(watch.seen).toEqual(watch.seen.map((_, index) => index + 1));
  } finally {
    await world.close();
  }
});

withRedis(`two processes of results and Redis${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  const lines: string[] = [];
  const metrics = createMetrics('results');
  let redis: RedisServer;
  let world: World;
  let org: Organization;

  beforeAll(async () => {
    redis = await startRedis();
    const logger = createLogger('results', { level: 'info', destination: { write: (line) => lines.push(line) } });
    world = await openWorld({ redisUrl: redis.url, logger, metrics });
    org = await world.organization();
  });

  afterAll(async () => {
    await world?.close();
    await redis?.stop();
  });

  test('a change at one wakes a watcher at the other', async () => {
    const watch = await watched(world, org, 9);
    expect(median(await watch.start(9))).toBeLessThan(WOKEN_MS);
    await watch.end();
    expect(watch.failures).toEqual([]);
  });

  test('Redis killed and started again under load: no error, no event lost, and wake-ups come back by themselves', async () => {
    const watch = await watched(world, org, 60);
    await watch.start(5);
    const from = lines.length;
    await redis.stop();
    await watch.start(5);
    await redis.start();
    // A connection that waits before it tries again tries within five seconds.
    for (const end = Date.now() + 15_000; median(await watch.start(3)) >= WOKEN_MS;) {
      if (Date.now() > end) throw new Error('wake-ups did not come back');
    }
    await watch.end();
    expect(watch.failures).toEqual([]);
    expect(watch.seen).toEqual(watch.seen.map((_, index) => index + 1));
    // Each of two processes says once that Redis is away, and once that it is back.
    const told = lines.slice(from).filter((line) => line.includes('Redis'));
    expect(told.filter((line) => line.includes('not available')).length).toBeLessThanOrEqual(3);
    expect(told.length).toBeLessThanOrEqual(6);
  });

  test('a job that does not move is looked at now and then while changes are heard, and every second when not', async () => {
    const watch = await watched(world, org, 1);
    const looks = async (): Promise<number> => {
      const before = await callsSoFar(metrics);
      await sleep(4 * SECOND_MS);
      return (await callsSoFar(metrics)) - before;
    };
    expect(await looks()).toBeLessThanOrEqual(1);
    await redis.stop();
    await sleep(SECOND_MS);
    expect(await looks()).toBeGreaterThanOrEqual(2);
    await redis.start();
    await watch.end();
    expect(watch.failures).toEqual([]);
  });
});
