import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { Code, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import type { DescService } from '@bufbuild/protobuf';
import { accessRuleOf } from '@mad/auth';
import { uuidv7 } from '@mad/process';
import { Audience } from '@mad/proto/access';
import * as catalog from '@mad/proto/catalog';
import * as identity from '@mad/proto/identity';
import * as provisioner from '@mad/proto/provisioner';
import * as results from '@mad/proto/results';
import { reasonOf, retryAfterMsOf } from '@mad/rpc';
import { platformToken, redisMissing, serviceToken, startRedis, userToken, type RedisServer } from '@mad/testing';
import type { GatewayConfig } from '../src/config.ts';
import { readGatewayConfig } from '../src/config.ts';
import { JOB, ORG, problemIn, seen, startEdge, type Running } from './harness.ts';

const opened: Running[] = [];
const edgeWith = async (settings: Partial<GatewayConfig> = {}): Promise<Running> => {
  const edge = await startEdge(settings);
  opened.push(edge);
  return edge;
};
afterEach(async () => {
  for (const edge of opened.splice(0)) await edge.close();
});

const ask = (edge: Running, token?: string, headers: Record<string, string> = {}) =>
  fetch(`${edge.url}/v1/organizations/${ORG}`, {
    headers: { ...(token !== undefined && { authorization: `Bearer ${token}` }), ...headers },
  });
const statuses = async (edge: Running, times: number, token?: string, headers?: Record<string, string>) => {
  const found: number[] = [];
  for (let i = 0; i < times; i += 1) found.push((await ask(edge, token, headers)).status);
  return found;
};

describe('what goes inward', () => {
  /** Everything a client might try to be somebody else by. */
  const forged = {
    'x-mad-user': JOB,
    'x-mad-org': JOB,
    'x-mad-lease': 'lease',
    'x-mad-end-user': JOB,
    'x-forwarded-for': '203.0.113.9',
    'x-forwarded-host': 'elsewhere',
    'x-real-ip': '203.0.113.9',
    forwarded: 'for=203.0.113.9',
    cookie: 'session=1',
    'proxy-authorization': 'Basic eA==',
    'grpc-timeout': '1n',
    baggage: 'user=root',
  };
  const INNER = new Set(['authorization', 'traceparent', 'x-request-id', 'x-forwarded-for']);
  /** What gRPC itself sends. */
  const TRANSPORT = /^(grpc-|user-agent$|te$|content-type$|:)/;

  const strangers = () => Object.keys(seen.headers).filter((name) => !INNER.has(name) && !TRANSPORT.test(name));

  test('REST: the credential, the trace, the id and the address seen here', async () => {
    const edge = await edgeWith();
    expect((await ask(edge, 'abc', { ...forged, 'x-request-id': 'mine' })).status).toBe(200);
    expect(strangers()).toEqual([]);
    expect(seen.headers).toMatchObject({
      authorization: 'Bearer abc',
      'x-request-id': 'mine',
      'x-forwarded-for': '127.0.0.1',
    });
  });

  test.each([
    ['Connect', createConnectTransport],
    ['gRPC-web', createGrpcWebTransport],
  ] as const)('%s: the same', async (_name, open) => {
    const edge = await edgeWith();
    const { 'grpc-timeout': _deadline, ...headers } = forged;
    const organizations = createClient(identity.OrganizationService, open({ baseUrl: edge.url, httpVersion: '1.1' }));
    await organizations.getOrganization({ orgId: ORG }, { headers: { ...headers, authorization: 'Bearer abc' } });
    expect(strangers()).toEqual([]);
    expect(seen.headers).toMatchObject({ authorization: 'Bearer abc', 'x-forwarded-for': '127.0.0.1' });
  });

  test("a proxy's word for the address is taken only where it is trusted", async () => {
    const edge = await edgeWith({ trustProxy: ['127.0.0.0/8'] });
    await ask(edge, 'abc', { 'x-forwarded-for': '198.51.100.1, 203.0.113.9' });
    expect(seen.headers['x-forwarded-for']).toBe('203.0.113.9');
  });
});

describe('what only services may call', () => {
  const methods = [catalog, identity, provisioner, results]
    .flatMap((contract) => Object.values<unknown>(contract))
    .filter((value): value is DescService => (value as DescService | null)?.kind === 'service')
    .flatMap((service) => service.methods);
  const inner = methods.filter((method) => accessRuleOf(method)?.audience === Audience.SERVICE);

  test('is not there, whatever the token', async () => {
    const edge = await edgeWith();
    expect(inner.length).toBeGreaterThan(10);
    const authorization = `Bearer ${await serviceToken('catalog')}`;
    for (const { parent, name } of inner) {
      const response = await fetch(`${edge.url}/${parent.typeName}/${name}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization },
        body: '{}',
      });
      expect([name, response.status]).toEqual([name, 404]);
    }
  });

  test.each([
    ['Connect', createConnectTransport],
    ['gRPC-web', createGrpcWebTransport],
  ] as const)('is unimplemented to a %s client', async (_name, open) => {
    const edge = await edgeWith();
    const queue = createClient(catalog.QueueService, open({ baseUrl: edge.url, httpVersion: '1.1' }));
    await expect(queue.settleTask({})).rejects.toMatchObject({ code: Code.Unimplemented });
  });

  test('every other method is served', async () => {
    const edge = await edgeWith();
    for (const { parent, name } of methods.filter((method) => !inner.includes(method))) {
      const response = await fetch(`${edge.url}/${parent.typeName}/${name}`, { method: 'PUT' });
      // Served, and refused for its HTTP method.
      expect([name, response.status]).toEqual([name, 405]);
    }
  });
});

describe('rates', () => {
  test('a token over its rate is refused until the minute ends, another goes on', async () => {
    const edge = await edgeWith({ rates: { token: 3, organization: 0, address: 0 } });
    const [one, other] = await Promise.all([userToken({ orgId: ORG }), userToken({ orgId: ORG })]);
    expect(await statuses(edge, 3, one)).toEqual([200, 200, 200]);
    const refused = await ask(edge, one);
    expect(refused.status).toBe(429);
    const seconds = Number(refused.headers.get('retry-after'));
    expect(seconds).toBeGreaterThan(0);
    expect(seconds).toBeLessThanOrEqual(60);
    expect(await problemIn(refused)).toMatchObject({
      reason: 'RATE_LIMITED',
      detail: 'too many requests: at most 3 a minute of one token',
      retryAfter: seconds,
    });
    expect(await statuses(edge, 1, other)).toEqual([200]);
  });

  test('the tokens of an organization share its rate; administrators have none', async () => {
    const edge = await edgeWith({ rates: { token: 0, organization: 2, address: 0 } });
    const acme = await Promise.all([1, 2, 3].map(() => userToken({ orgId: ORG })));
    const found = [];
    for (const token of acme) found.push(...(await statuses(edge, 1, token)));
    expect(found).toEqual([200, 200, 429]);
    expect(await statuses(edge, 1, await userToken({ orgId: uuidv7() }))).toEqual([200]);
    expect(await statuses(edge, 3, await platformToken())).toEqual([200, 200, 200]);
  });

  test("a made-up token counts against its sender's address, not against the organization it names", async () => {
    const edge = await edgeWith({ rates: { token: 0, organization: 1, address: 2 } });
    const forged = `${(await userToken({ orgId: ORG })).slice(0, -8)}AAAAAAAA`;
    expect(await statuses(edge, 3, forged)).toEqual([200, 200, 429]);
    expect(await statuses(edge, 1, await userToken({ orgId: ORG }))).toEqual([200]);
  });

  test('guessing API tokens and passwords is slowed by address, a good token beside it or not', async () => {
    const edge = await edgeWith({ rates: { token: 0, organization: 0, address: 2 } });
    expect(await statuses(edge, 3, 'mad_wrong')).toEqual([401, 401, 429]);
    const login = await edgeWith({ rates: { token: 0, organization: 0, address: 2 } });
    const found = [];
    const token = await userToken({ orgId: ORG });
    for (let i = 0; i < 3; i += 1) {
      const response = await fetch(`${login.url}/v1/sessions:login`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
        body: JSON.stringify({ email: 'a@acme.example', password: 'wrong-password-1' }),
      });
      found.push(response.status);
    }
    expect(found).toEqual([401, 401, 429]);
  });

  test('addresses behind a trusted proxy are told apart; else a client cannot change its own', async () => {
    const rates = { token: 0, organization: 0, address: 1 };
    const behind = await edgeWith({ rates, trustProxy: ['127.0.0.1'] });
    const direct = await edgeWith({ rates });
    const from = (address: string) => ({ 'x-forwarded-for': address });
    expect(await statuses(behind, 2, undefined, from('203.0.113.1'))).toEqual([200, 429]);
    expect(await statuses(behind, 1, undefined, from('203.0.113.2'))).toEqual([200]);
    expect(await statuses(direct, 1, undefined, from('203.0.113.1'))).toEqual([200]);
    expect(await statuses(direct, 1, undefined, from('203.0.113.2'))).toEqual([429]);
  });

  test.each([
    ['Connect', createConnectTransport],
    ['gRPC-web', createGrpcWebTransport],
  ] as const)('a %s client is told in its own protocol', async (_name, open) => {
    const edge = await edgeWith({ rates: { token: 1, organization: 0, address: 0 } });
    const headers = { authorization: `Bearer ${await userToken({ orgId: ORG })}` };
    const jobs = createClient(catalog.JobService, open({ baseUrl: edge.url, httpVersion: '1.1' }));
    await jobs.getJob({ orgId: ORG, jobId: JOB }, { headers });
    const refusal = await jobs.getJob({ orgId: ORG, jobId: JOB }, { headers }).catch((error: unknown) => error);
    expect(refusal).toMatchObject({ code: Code.ResourceExhausted });
    expect(reasonOf(refusal)).toBe('RATE_LIMITED');
    expect(retryAfterMsOf(refusal)).toBeGreaterThan(0);
  });
});

const withRedis = redisMissing() === undefined ? describe : describe.skip;
withRedis('rates in Redis', () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await startRedis();
  });
  afterAll(() => redis?.stop());

  test('are counted for all gateways together, and by each for itself while it is away', async () => {
    const settings = { rates: { token: 3, organization: 0, address: 0 }, redisUrl: redis.url };
    const [one, other] = [await edgeWith(settings), await edgeWith(settings)];
    const token = await userToken({ orgId: ORG });
    // Requests may come before the connections stand; from then on there is one count.
    const together = async (): Promise<boolean> => {
      const some = await userToken({ orgId: ORG });
      await statuses(one, 3, some);
      return (await statuses(other, 1, some))[0] === 429;
    };
    for (let wait = 0; wait < 100 && !(await together()); wait += 1) await delay(50);
    expect(await statuses(one, 2, token)).toEqual([200, 200]);
    expect(await statuses(other, 2, token)).toEqual([200, 429]);
    expect(await statuses(one, 1, token)).toEqual([429]);

    await redis.stop();
    const next = await userToken({ orgId: ORG });
    expect(await statuses(one, 4, next)).toEqual([200, 200, 200, 429]);
    expect(await statuses(other, 1, next)).toEqual([200]);
    await redis.start();
  });
});

describe('settings', () => {
  const env = {
    GATEWAY_SERVICE_KEY: JSON.stringify({ kty: 'EC', crv: 'P-256', kid: 'k', x: 'x', y: 'y', d: 'd' }),
  };

  test.each([
    ['GATEWAY_CORS_ORIGINS', '*'],
    ['GATEWAY_CORS_ORIGINS', 'https://console.example.org/'],
    ['GATEWAY_CORS_ORIGINS', 'console.example.org'],
    ['GATEWAY_TRUST_PROXY', 'true'],
    ['GATEWAY_TRUST_PROXY', '10.0.0.0/40'],
    ['GATEWAY_TOKEN_RATE', '-1'],
  ])('%s=%s is refused by name', (name, value) => {
    expect(() => readGatewayConfig({ ...env, [name]: value })).toThrow(name);
  });

  test('lists are divided by commas', () => {
    const problems = (() => {
      try {
        const { corsOrigins, trustProxy } = readGatewayConfig({
          ...env,
          GATEWAY_CORS_ORIGINS: 'https://a.example, http://localhost:5173',
          GATEWAY_TRUST_PROXY: '10.0.0.0/8,::1',
        });
        return { corsOrigins, trustProxy };
      } catch (error) {
        return (error as Error).message;
      }
    })();
    expect(problems).toEqual({
      corsOrigins: ['https://a.example', 'http://localhost:5173'],
      trustProxy: ['10.0.0.0/8', '::1'],
    });
  });
});
