import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Client } from '@connectrpc/connect';
import { serviceTokenInterceptor } from '@mad/auth';
import { createLogger, sleep } from '@mad/process';
import { QueueService } from '@mad/proto/catalog';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';
import { redisMissing, serviceToken, startRedis, type RedisServer } from '@mad/testing';
import { createClient } from '@connectrpc/connect';
import { startCatalog, type RunningCatalog } from '../src/index.ts';
import { startJobWorld, type JobWorld, type Lab } from './job-world.ts';

/** A waiting worker's process looks every second: one that is woken has its task far sooner. */
const WOKEN_MS = 300;
const ROOM = { worker: 'far', maxTasks: 1, freeCores: 8, freeMemoryMb: 8_192, waitMs: 10_000 };

const missing = redisMissing();
const withRedis = missing === undefined ? describe : describe.skip;

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

withRedis(`two processes of catalog and Redis${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  const lines: string[] = [];
  let redis: RedisServer;
  let world: JobWorld;
  let lab: Lab;
  let other: RunningCatalog;
  let transport: GrpcTransport;
  let worker: Client<typeof QueueService>;
  let engines: string[];

  beforeAll(async () => {
    redis = await startRedis();
    // Nothing but the signal may wake a worker early: the rounds over the queue come rarely.
    const queue = { leaseMs: 60_000, reapMs: 60_000, reconcileAfterMs: 600_000 };
    world = await startJobWorld({ redisUrl: redis.url, queue });
    const logger = createLogger('catalog', { level: 'info', destination: { write: (line) => lines.push(line) } });
    other = await startCatalog({ ...world.catalog.config, port: 0 }, { logger });
    transport = grpcTransport(`127.0.0.1:${other.port}`, {
      interceptors: [serviceTokenInterceptor(() => serviceToken('worker'))],
    });
    worker = createClient(QueueService, transport);
    engines = await world.engines();
    // As many as the test starts at one time are allowed.
    lab = await world.lab({ maxConcurrentJobs: 1_000, maxRunningTasks: 1_000 });
  });

  afterAll(async () => {
    transport?.close();
    await other?.close();
    await world?.close();
    await redis?.stop();
  });

  /** A worker waits at the other process; a job is made at the first. Milliseconds from when it is made to the lease. */
  async function waitFor(jobs: number): Promise<number[]> {
    const latencies: number[] = [];
    for (let n = 0; n < jobs; n += 1) {
      const leasing = worker.leaseTasks({ ...ROOM, engines });
      // At another point of the waiting process's second each time.
      await sleep(150 + 130 * (n % 7));
      await lab.submit();
      // From here on: how long the making takes is the machine's.
      const began = performance.now();
      const { tasks } = await leasing;
      latencies.push(performance.now() - began);
      expect(tasks).toHaveLength(1);
      await world.settle(tasks[0]!);
    }
    return latencies;
  }

  test('a job made at one wakes a worker that waits at the other', async () => {
    expect(median(await waitFor(9))).toBeLessThan(WOKEN_MS);
  });

  test('Redis killed and started again: every worker gets its task, and wake-ups come back by themselves', async () => {
    const from = lines.length;
    await redis.stop();
    await waitFor(4);
    await redis.start();
    for (const end = Date.now() + 15_000; median(await waitFor(3)) >= WOKEN_MS;) {
      if (Date.now() > end) throw new Error('wake-ups did not come back');
    }
    const told = lines.slice(from).filter((line) => line.includes('Redis'));
    expect(told.filter((line) => line.includes('not available')).length).toBeLessThanOrEqual(2);
    expect(told.length).toBeLessThanOrEqual(4);
  });
});

test('without Redis a worker that waits at another process finds its task by looking', async () => {
  const world = await startJobWorld();
  const other = await startCatalog(
    { ...world.catalog.config, port: 0 },
    { logger: createLogger('catalog', { level: 'silent' }) },
  );
  const transport = grpcTransport(`127.0.0.1:${other.port}`, {
    interceptors: [serviceTokenInterceptor(() => serviceToken('worker'))],
  });
  try {
    const lab = await world.lab();
    const leasing = createClient(QueueService, transport).leaseTasks({ ...ROOM, engines: await world.engines() });
    await sleep(100);
    await lab.submit();
    expect((await leasing).tasks).toHaveLength(1);
  } finally {
    transport.close();
    await other.close();
    await world.close();
  }
});
