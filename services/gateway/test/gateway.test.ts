import { connect } from 'node:net';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import { generateSigningKey } from '@mad/auth';
import { createLogger, sleep } from '@mad/process';
import { JobService, JobState, MoleculeService } from '@mad/proto/catalog';
import { OrganizationService, OrganizationStatus, SessionService } from '@mad/proto/identity';
import { TenantService } from '@mad/proto/provisioner';
import { JobRunService } from '@mad/proto/results';
import { bind, invalid, notFound, rpcError, serveRpc, type RpcServer } from '@mad/rpc';
import { redisMissing, startRedis } from '@mad/testing';
import type { GatewayConfig } from '../src/config.ts';
import { startGateway, type Gateway } from '../src/start.ts';

const ORG = '0198c000-0000-7000-8000-000000000001';
const JOB = '0198c000-0000-7000-8000-000000000002';
const logger = createLogger('test', { level: 'silent' });

/** What the neighbours saw and how they shall answer. */
const seen = { authorization: '', traceparent: '', forged: '' as string | null, exchanges: 0, aborted: 0 };
const fleet = {
  metadataLatencyMs: 1.5,
  servers: [{ name: 'local', healthy: true, latencyMs: 2 }],
  tenantsByState: { READY: 2n },
};

let neighbours: RpcServer;
let gateway: Gateway;
let config: GatewayConfig;
let url: string;

beforeAll(async () => {
  neighbours = await serveRpc({
    service: 'neighbours',
    host: '127.0.0.1',
    port: 0,
    interceptors: [],
    logger,
    services: [
      bind(OrganizationService, {
        getOrganization(request, ctx) {
          seen.authorization = ctx.requestHeader.get('authorization') ?? '';
          seen.traceparent = ctx.requestHeader.get('traceparent') ?? '';
          seen.forged = ctx.requestHeader.get('x-mad-user');
          return { organization: { orgId: request.orgId, slug: 'acme', status: OrganizationStatus.ACTIVE } };
        },
        listOrganizations: (request) => ({ nextPageToken: `${request.pageSize}|${request.slug}` }),
        createOrganization: () => {
          throw rpcError(Code.AlreadyExists, 'ALREADY_EXISTS', 'slug is taken', { field: 'slug' });
        },
      }),
      bind(SessionService, {
        exchangeToken(request) {
          seen.exchanges += 1;
          if (request.token === 'mad_wrong') throw new ConnectError('the token is not valid', Code.Unauthenticated);
          return {
            tokens: { accessToken: `for-${request.token}`, accessExpireTime: timestampFromMs(Date.now() + 600_000) },
          };
        },
      }),
      bind(JobService, {
        getJob(request) {
          if (request.jobId !== JOB) throw notFound('job', request.jobId);
          return { job: { jobId: JOB, orgId: request.orgId, state: JobState.RUNNING, counters: { requested: 5n } } };
        },
        createJob: () => {
          throw rpcError(
            Code.ResourceExhausted,
            'QUOTA_EXCEEDED',
            'too many queued tasks',
            {},
            { retryAfterMs: 3_000 },
          );
        },
        cancelJob: () => {
          throw new TypeError('secret detail');
        },
      }),
      bind(MoleculeService, {
        registerMolecules: (request) => ({
          registered: request.rows.map((row, i) => ({ line: i + 1, canonicalSmiles: row.smiles })),
        }),
        updateMolecule: () => {
          throw invalid('name', 'must not be empty');
        },
      }),
      bind(JobRunService, {
        async *watchJob(request, ctx) {
          if (request.jobId !== JOB) throw notFound('job', request.jobId);
          for (let n = 1n; n <= 3n; n += 1n)
            yield { events: [{ seqNo: n, event: 'job.progress' }], state: JobState.RUNNING };
          if (request.afterSeq === 7n) throw new ConnectError('tenant is gone', Code.Unavailable);
          if (request.afterSeq === 9n) {
            await new Promise((resolve) => ctx.signal.addEventListener('abort', resolve));
            seen.aborted += 1;
          }
        },
      }),
      bind(TenantService, { getFleetHealth: () => fleet }),
    ],
  });
  const address = `127.0.0.1:${neighbours.port}`;
  config = {
    host: '127.0.0.1',
    port: 0,
    addresses: { identity: address, catalog: address, results: address, provisioner: address },
    servicePrivateJwk: (await generateSigningKey()).privateJwk,
    bodyLimitBytes: 64 * 1024,
    timeoutMs: 5_000,
  };
  gateway = await startGateway(config, { logger });
  url = `http://127.0.0.1:${gateway.port}`;
});

afterAll(async () => {
  await gateway?.close();
  await neighbours?.close();
});

const get = (path: string, headers: Record<string, string> = {}) => fetch(`${url}${path}`, { headers });
const send = (method: string, path: string, body: unknown, type = 'application/json') =>
  fetch(`${url}${path}`, {
    method,
    headers: { 'content-type': type },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
const problem = async (response: Response) => {
  expect(response.headers.get('content-type')).toMatch(/^application\/problem\+json/);
  return (await response.json()) as Record<string, unknown>;
};

describe('REST', () => {
  test('a path becomes a request, the answer plain JSON', async () => {
    const response = await get(`/v1/organizations/${ORG}`);
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({
      organization: { orgId: ORG, slug: 'acme', status: 'ORGANIZATION_STATUS_ACTIVE' },
    });
  });

  test('query parameters become fields', async () => {
    expect(await (await get('/v1/organizations?page_size=7&slug=acme')).json()).toMatchObject({
      nextPageToken: '7|acme',
    });
    expect(await (await get('/v1/organizations?pageSize=7')).json()).toMatchObject({ nextPageToken: '7|' });
  });

  test.each([
    ['/v1/organizations?page_size=many', 'page_size'],
    ['/v1/organizations?nonsense=1', 'nonsense'],
    ['/v1/organizations?page_size=1&page_size=2', 'page_size'],
    ['/v1/organizations/not-a-uuid', 'org_id'],
    [`/v1/organizations/${ORG}?org_id=${JOB}`, 'org_id'],
  ])('%s is refused naming %s', async (path, field) => {
    const response = await get(path);
    expect(response.status).toBe(400);
    expect(await problem(response)).toMatchObject({ code: 'INVALID_ARGUMENT', errors: [{ field }] });
  });

  test('malformed percent-encoding is refused', async () => {
    const response = await get('/v1/organizations/%E0%A4%A');
    expect(response.status).toBe(400);
    expect(await problem(response)).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('the body becomes the request; path and body must agree', async () => {
    const rows = [{ smiles: 'CCO', name: "Robert'); DROP TABLE molecules;--" }];
    const path = `/v1/organizations/${ORG}/molecules:register`;
    const good = await send('POST', path, { request_id: JOB, rows });
    expect(await good.json()).toMatchObject({ registered: [{ line: 1, canonicalSmiles: 'CCO' }], rejected: [] });
    const bad = await send('POST', path, { orgId: JOB, request_id: JOB, rows });
    expect(await problem(bad)).toMatchObject({ errors: [{ field: 'org_id' }] });
  });

  test.each([
    ['{"rows": [', 400],
    ['[1]', 400],
    ['{"unknownField": 1}', 400],
  ])('the body %s is refused', async (body, status) => {
    const response = await send('POST', `/v1/organizations/${ORG}/molecules:register`, body);
    expect(response.status).toBe(status);
    expect(await problem(response)).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('a body over the limit is refused and the next call answers', async () => {
    const response = await send(
      'POST',
      `/v1/organizations/${ORG}/molecules:register`,
      `{"rows": "${'x'.repeat(70_000)}"}`,
    );
    expect(response.status).toBe(413);
    expect(await problem(response)).toMatchObject({ status: 413 });
    expect((await get('/live')).status).toBe(200);
  });

  test('another media type is refused', async () => {
    const response = await send('POST', `/v1/organizations/${ORG}/molecules:register`, 'rows', 'text/csv');
    expect(response.status).toBe(415);
  });

  test('errors keep reason, details and time to wait', async () => {
    const missing = await get(`/v1/organizations/${ORG}/jobs/${ORG}`);
    expect(missing.status).toBe(404);
    expect(await problem(missing)).toMatchObject({
      code: 'NOT_FOUND',
      instance: `/v1/organizations/${ORG}/jobs/${ORG}`,
    });

    const request = { request_id: JOB, pipeline_id: JOB };
    const busy = await send('POST', `/v1/organizations/${ORG}/jobs`, request);
    expect(busy.status).toBe(429);
    expect(busy.headers.get('retry-after')).toBe('3');
    expect(await problem(busy)).toMatchObject({ reason: 'QUOTA_EXCEEDED', code: 'RESOURCE_EXHAUSTED' });

    const named = await send('PATCH', `/v1/organizations/${ORG}/molecules/${JOB}`, { request_id: JOB });
    expect(await problem(named)).toMatchObject({ errors: [{ field: 'name', detail: 'must not be empty' }] });
  });

  test('a bug says nothing about itself', async () => {
    const response = await send('POST', `/v1/organizations/${ORG}/jobs/${JOB}:cancel`, { request_id: JOB });
    expect(response.status).toBe(500);
    expect(await problem(response)).toMatchObject({ detail: 'internal error' });
  });

  test('unknown paths and methods', async () => {
    expect((await get('/v1/nothing')).status).toBe(404);
    expect((await get('/nothing')).status).toBe(404);
    const response = await send('DELETE', `/v1/organizations/${ORG}/jobs/${JOB}`, {});
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe('GET');
  });

  test('a stream is one JSON object a line, its late error the last', async () => {
    const path = `/v1/organizations/${ORG}/jobs/${JOB}:watch`;
    const lines = (await (await get(path)).text())
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines).toHaveLength(3);
    expect(lines[2]).toMatchObject({ result: { events: [{ seqNo: '3' }], state: 'JOB_STATE_RUNNING' } });

    const cut = (await (await get(`${path}?after_seq=7`)).text()).trim().split('\n');
    expect(JSON.parse(cut.at(-1)!)).toMatchObject({ error: { code: 'UNAVAILABLE', detail: 'tenant is gone' } });
  });

  test('a stream as server-sent events, where asked for', async () => {
    const response = await get(`/v1/organizations/${ORG}/jobs/${JOB}:watch`, { accept: 'text/event-stream' });
    expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/);
    expect(await response.text()).toMatch(/^data: \{.*\n\n.*event: end\n/s);
  });

  test('an early error of a stream keeps its status', async () => {
    expect((await get(`/v1/organizations/${ORG}/jobs/${ORG}:watch`)).status).toBe(404);
  });

  test('a client that goes away ends the call inside', async () => {
    const before = seen.aborted;
    const client = new AbortController();
    const response = await fetch(`${url}/v1/organizations/${ORG}/jobs/${JOB}:watch?after_seq=9`, {
      signal: client.signal,
    });
    await response.body!.getReader().read();
    client.abort();
    for (let i = 0; i < 100 && seen.aborted === before; i += 1) await sleep(20);
    expect(seen.aborted).toBe(before + 1);
  });
});

describe('credentials', () => {
  test('an access token passes, identity headers of the client do not', async () => {
    await get(`/v1/organizations/${ORG}`, { authorization: 'Bearer abc', 'x-mad-user': JOB });
    expect(seen.authorization).toBe('Bearer abc');
    expect(seen.forged).toBeNull();
  });

  test("the caller's trace goes on inside and is told", async () => {
    const response = await get(`/v1/organizations/${ORG}`, {
      traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`,
    });
    expect(seen.traceparent).toContain('a'.repeat(32));
    expect(response.headers.get('x-trace-id')).toBe('a'.repeat(32));
    expect(response.headers.get('x-request-id')).toMatch(/./);
  });

  test('an API token is exchanged once', async () => {
    const before = seen.exchanges;
    for (let i = 0; i < 3; i += 1) await get(`/v1/organizations/${ORG}`, { authorization: 'Bearer mad_good' });
    expect(seen.authorization).toBe('Bearer for-mad_good');
    expect(seen.exchanges).toBe(before + 1);
  });

  test('a wrong API token is unauthenticated', async () => {
    const response = await get(`/v1/organizations/${ORG}`, { authorization: 'Bearer mad_wrong' });
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toBe('Bearer');
  });
});

describe('Connect and gRPC-web', () => {
  const transports = () => ({
    connect: createConnectTransport({ baseUrl: url, httpVersion: '1.1' }),
    'gRPC-web': createGrpcWebTransport({ baseUrl: url, httpVersion: '1.1' }),
  });

  test.each(['connect', 'gRPC-web'] as const)('%s: answers, streams and errors pass', async (name) => {
    const transport = transports()[name];
    const jobs = createClient(JobService, transport);
    expect((await jobs.getJob({ orgId: ORG, jobId: JOB })).job?.counters?.requested).toBe(5n);
    await expect(jobs.getJob({ orgId: ORG, jobId: ORG })).rejects.toMatchObject({ code: Code.NotFound });
    const events: bigint[] = [];
    for await (const {
      events: [event],
    } of createClient(JobRunService, transport).watchJob({ orgId: ORG, jobId: JOB })) {
      events.push(event!.seqNo);
    }
    expect(events).toEqual([1n, 2n, 3n]);
  });
});

describe('what services ask each other', () => {
  test.each(['connect', 'gRPC-web'] as const)('is not served to %s clients, whatever token they show', async (name) => {
    const options = { baseUrl: url, httpVersion: '1.1' } as const;
    const transport = name === 'connect' ? createConnectTransport(options) : createGrpcWebTransport(options);
    const headers = { authorization: 'Bearer a-service-token' };
    const tenants = createClient(TenantService, transport);
    await expect(tenants.getFleetHealth({}, { headers })).rejects.toMatchObject({ code: Code.Unimplemented });
  });
});

test('a service that is away is told without its address, which the log keeps', async () => {
  const lines: Record<string, unknown>[] = [];
  const address = '127.0.0.1:1';
  const away = await startGateway(
    {
      host: '127.0.0.1',
      port: 0,
      addresses: { identity: address, catalog: address, results: address, provisioner: address },
      servicePrivateJwk: (await generateSigningKey()).privateJwk,
      bodyLimitBytes: 64 * 1024,
      timeoutMs: 5_000,
    },
    { logger: createLogger('test', { destination: { write: (line) => void lines.push(JSON.parse(line)) } }) },
  );
  try {
    const path = `http://127.0.0.1:${away.port}`;
    const rest = await problem(await fetch(`${path}/v1/organizations/${ORG}/jobs/${JOB}`));
    const detail = 'mad.catalog.v1.JobService is not reachable';
    expect(rest).toMatchObject({ status: 503, code: 'UNAVAILABLE', reason: 'SERVICE_UNAVAILABLE', detail });
    const jobs = createClient(JobService, createConnectTransport({ baseUrl: path, httpVersion: '1.1' }));
    await expect(jobs.getJob({ orgId: ORG, jobId: JOB })).rejects.toMatchObject({
      code: Code.Unavailable,
      rawMessage: detail,
    });
    const kept = lines.filter(({ msg }) => msg === 'upstream not reachable');
    expect(kept.map(({ cause }) => String(cause).includes(address))).toEqual([true, true]);
  } finally {
    await away.close();
  }
});

test('a Connect call keeps its trace inside', async () => {
  const headers = { traceparent: `00-${'c'.repeat(32)}-${'d'.repeat(16)}-01`, 'content-type': 'application/json' };
  const path = `${url}/mad.identity.v1.OrganizationService/GetOrganization`;
  const response = await fetch(path, { method: 'POST', headers, body: JSON.stringify({ orgId: ORG }) });
  expect(response.status).toBe(200);
  expect(seen.traceparent).toContain('c'.repeat(32));
  expect(response.headers.get('x-trace-id')).toBe('c'.repeat(32));
});

describe('probes', () => {
  test('/live and /metrics', async () => {
    expect(await (await get('/live')).json()).toEqual({ status: 'live' });
    expect(await (await get('/metrics')).text()).toContain('http_request_duration_seconds');
  });

  test('/ready has the shape of the seeds', async () => {
    const response = await get('/ready');
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({
      status: 'ready',
      degraded: false,
      checks: { databases: { metadata: true, local: true }, metadata_db: true, org_databases: { READY: 2 } },
      latency_ms: { metadata: 1.5, local: 2 },
    });
  });

  test('one sick tenant or server degrades and stays ready; none left is not ready', async () => {
    const { servers, tenantsByState } = fleet;
    fleet.tenantsByState = { READY: 2n, FAILED: 1n } as never;
    fleet.servers = [...servers, { name: 'far', healthy: false, latencyMs: -1 }];
    expect(await (await get('/ready')).json()).toMatchObject({ status: 'ready', degraded: true });
    fleet.servers = [{ name: 'far', healthy: false, latencyMs: -1 }];
    const response = await get('/ready');
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ status: 'not_ready' });
    Object.assign(fleet, { servers, tenantsByState });
  });

  const missing = redisMissing();
  (missing === undefined ? test : test.skip)(
    '/ready looks at Redis where it is used; without it degraded, ready',
    async () => {
      const redis = await startRedis();
      const withRedis = await startGateway({ ...config, redisUrl: redis.url }, { logger });
      const ready = async () => {
        const response = await fetch(`http://127.0.0.1:${withRedis.port}/ready`);
        return (await response.json()) as { degraded: boolean };
      };
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
        const began = Date.now();
        const hung = await ready();
        expect(Date.now() - began).toBeLessThan(1_500);
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
        await withRedis.close();
        await redis.stop();
      }
    },
  );
});

test('two bytes and silence hold nobody up', async () => {
  const silent = connect(gateway.port, '127.0.0.1');
  await once(silent, 'connect');
  silent.write('GE');
  expect((await get('/live')).status).toBe(200);
  silent.destroy();
});
