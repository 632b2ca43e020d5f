import { expect, test } from '@jest/globals';
import { Code, createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { createLogger, sleep } from '@mad/process';
import { JobService } from '@mad/proto/catalog';
import { redisMissing, startRedis } from '@mad/testing';
import { startGateway } from '../src/start.ts';
import { gatewayConfig, JOB, ORG, problemIn, startEdge } from './harness.ts';

test('a service that is away is told without its address, which the log keeps', async () => {
  const lines: Record<string, unknown>[] = [];
  const away = await startGateway(await gatewayConfig(1), {
    logger: createLogger('test', { destination: { write: (line) => void lines.push(JSON.parse(line)) } }),
  });
  try {
    const path = `http://127.0.0.1:${away.port}`;
    const rest = await problemIn(await fetch(`${path}/v1/organizations/${ORG}/jobs/${JOB}`));
    const detail = 'mad.catalog.v1.JobService is not reachable';
    expect(rest).toMatchObject({ status: 503, code: 'UNAVAILABLE', reason: 'SERVICE_UNAVAILABLE', detail });
    const jobs = createClient(JobService, createConnectTransport({ baseUrl: path, httpVersion: '1.1' }));
    await expect(jobs.getJob({ orgId: ORG, jobId: JOB })).rejects.toMatchObject({
      code: Code.Unavailable,
      rawMessage: detail,
    });
    const kept = lines.filter(({ msg }) => msg === 'upstream not reachable');
    expect(kept.map(({ cause }) => String(cause).includes('127.0.0.1:1'))).toEqual([true, true]);
  } finally {
    await away.close();
  }
});

const missing = redisMissing();
(missing === undefined ? test : test.skip)(
  `/ready looks at Redis where it is used; without it degraded, ready${missing === undefined ? '' : `: ${missing}`}`,
  async () => {
    const redis = await startRedis();
    const edge = await startEdge({ redisUrl: redis.url });
    const ready = async () => (await (await fetch(`${edge.url}/ready`)).json()) as { degraded: boolean };
    try {
      // A busy machine may not connect at the first attempt.
      for (const end = Date.now() + 10_000; Date.now() < end && (await ready()).degraded;) await sleep(50);
      expect(await ready()).toMatchObject({
        status: 'ready',
        degraded: false,
        checks: { databases: { metadata: true, local: true, redis: true } },
        latency_ms: { redis: expect.any(Number) },
      });
      redis.freeze();
      const hung = await ready();
      expect(hung).toMatchObject({ status: 'ready', degraded: true, checks: { databases: { redis: false } } });
      expect(hung).not.toHaveProperty('latency_ms.redis');
      redis.thaw();
      await redis.stop();
      expect(await ready()).toMatchObject({
        status: 'ready',
        degraded: true,
        checks: { databases: { redis: false } },
      });
    } finally {
      await edge.close();
      await redis.stop();
    }
  },
);
