import { connect } from 'node:net';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { Code, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import { JobService } from '@mad/proto/catalog';
import { JobRunService } from '@mad/proto/results';
import { fleet, JOB, ORG, problemIn as problem, seen, startEdge, type Running } from './harness.ts';

let edge: Running;
let url: string;

beforeAll(async () => {
  edge = await startEdge();
  ({ url } = edge);
});

afterAll(() => edge?.close());

const get = (path: string, headers: Record<string, string> = {}) => fetch(`${url}${path}`, { headers });
const send = (method: string, path: string, body: unknown, type = 'application/json') =>
  fetch(`${url}${path}`, {
    method,
    headers: { 'content-type': type },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });

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
    expect(response.headers.get('allow')).toBe('GET, HEAD, OPTIONS');
  });
});

describe('credentials', () => {
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

test('gRPC-web as text is refused: the library speaks it in binary only', async () => {
  const response = await fetch(`${url}/mad.catalog.v1.JobService/GetJob`, {
    method: 'POST',
    headers: { 'content-type': 'application/grpc-web-text' },
    body: 'AAAAAAA=',
  });
  expect(response.status).toBe(415);
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

  test('a key service that is away degrades and stays ready', async () => {
    Object.assign(fleet, { keyService: { healthy: true, latencyMs: 3, error: '' } });
    const healthy = await (await get('/ready')).json();
    expect(healthy).toMatchObject({ degraded: false, checks: { key_service: true }, latency_ms: { key_service: 3 } });
    Object.assign(fleet, { keyService: { healthy: false, latencyMs: 0, error: 'it does not answer' } });
    const response = await get('/ready');
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ status: 'ready', degraded: true, checks: { key_service: false } });
    Object.assign(fleet, { keyService: undefined });
  });

  test('when the metadata was archived is told, and makes nothing unready', async () => {
    const at = new Date('2026-11-26T03:00:00Z');
    Object.assign(fleet, { metadataBackup: { backupTime: timestampFromDate(at), overdue: true, error: '' } });
    expect(await (await get('/ready')).json()).toMatchObject({
      status: 'ready',
      degraded: false,
      checks: { metadata_backup: { time: at.toISOString(), overdue: true, error: '' } },
    });
    Object.assign(fleet, { metadataBackup: { overdue: false, error: '' } });
    const never = { time: null, overdue: false, error: '' };
    expect(await (await get('/ready')).json()).toMatchObject({ checks: { metadata_backup: never } });
    Object.assign(fleet, { metadataBackup: undefined });
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
});

test('two bytes and silence hold nobody up', async () => {
  const silent = connect(edge.port, '127.0.0.1');
  await once(silent, 'connect');
  silent.write('GE');
  expect((await get('/live')).status).toBe(200);
  silent.destroy();
});
