import { connect } from 'node:net';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { get } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { JOB, ORG, problemIn, startEdge, WATCH, type Running } from './harness.ts';

const CONSOLE = 'https://console.example.org';
const MOLECULES = `/v1/organizations/${ORG}/molecules:register`;

let edge: Running;
let open: Running;
let url: string;

beforeAll(async () => {
  edge = await startEdge();
  open = await startEdge({ corsOrigins: [CONSOLE] });
  ({ url } = edge);
});

afterAll(async () => {
  await edge?.close();
  await open?.close();
});

/** What the server answers to bytes that no HTTP client would send. */
function raw(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
    socket.on('close', () => resolve(answer));
    socket.on('error', reject);
  });
}

/** The bytes of an answer as they came. */
function bytesOf(path: string, encoding: string): Promise<{ encoding: string | undefined; body: Buffer }> {
  return new Promise((resolve, reject) => {
    get(`${url}${path}`, { headers: { 'accept-encoding': encoding } }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () =>
        resolve({ encoding: response.headers['content-encoding'], body: Buffer.concat(chunks) }),
      );
    }).on('error', reject);
  });
}

describe('limits name themselves', () => {
  test('a body over the limit', async () => {
    const response = await fetch(`${url}${MOLECULES}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: `{"rows": "${'x'.repeat(70_000)}"}`,
    });
    expect(response.status).toBe(413);
    expect(await problemIn(response)).toMatchObject({ detail: 'the body is over the limit of 65536 bytes' });
  });

  test('a Connect message over the limit', async () => {
    const response = await fetch(`${url}/mad.catalog.v1.MoleculeService/RegisterMolecules`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ rows: [{ smiles: 'C'.repeat(70_000) }] }),
    });
    expect(response.status).toBe(429);
    expect(await response.json()).toMatchObject({
      code: 'resource_exhausted',
      message: expect.stringContaining('65536'),
    });
  });

  test('headers over the limit', async () => {
    const answer = await raw(edge.port, `GET /live HTTP/1.1\r\nhost: edge\r\nx-long: ${'x'.repeat(20_000)}\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 431 /);
    expect(JSON.parse(answer.split('\r\n\r\n')[1]!)).toMatchObject({
      status: 431,
      detail: 'the request line and headers are over the limit of 16384 bytes',
    });
  });

  test.each([
    ['path', `/v1/organizations/${'x'.repeat(9_000)}`],
    ['query', `/v1/organizations?slug=${'x'.repeat(9_000)}`],
  ])('a %s over the limit', async (_what, path) => {
    const response = await fetch(`${url}${path}`);
    expect(response.status).toBe(414);
    expect(await problemIn(response)).toMatchObject({ detail: 'the path and query are over the limit of 8192 bytes' });
  });

  test('a compressed body is refused: its limit would say nothing', async () => {
    const response = await fetch(`${url}${MOLECULES}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'content-encoding': 'gzip' },
      body: '{}',
    });
    expect(response.status).toBe(415);
    expect(await problemIn(response)).toMatchObject({ detail: 'content-encoding gzip is not accepted' });
  });

  test('what is no HTTP at all', async () => {
    expect(await raw(edge.port, 'EHLO edge\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 .*"status":400/s);
  });
});

describe('HEAD and OPTIONS', () => {
  test('HEAD is GET without a body', async () => {
    const [head, whole] = await Promise.all([
      fetch(`${url}/v1/organizations/${ORG}`, { method: 'HEAD' }),
      fetch(`${url}/v1/organizations/${ORG}`),
    ]);
    expect(head.status).toBe(200);
    expect(await head.text()).toBe('');
    expect(head.headers.get('content-length')).toBe(String((await whole.text()).length));
    expect((await fetch(`${url}/v1/organizations/${ORG}/jobs/${ORG}`, { method: 'HEAD' })).status).toBe(404);
  });

  test('a stream has no HEAD', async () => {
    const response = await fetch(`${url}${WATCH}`, { method: 'HEAD' });
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe('GET, HEAD, OPTIONS');
  });

  test.each([
    [`/v1/organizations/${ORG}`, 'GET, PATCH, HEAD, OPTIONS'],
    [MOLECULES, 'POST, OPTIONS'],
  ])('OPTIONS %s says %s', async (path, allow) => {
    const response = await fetch(`${url}${path}`, { method: 'OPTIONS' });
    expect(response.status).toBe(204);
    expect(response.headers.get('allow')).toBe(allow);
  });

  test('OPTIONS of nothing is not found', async () => {
    expect((await fetch(`${url}/v1/nothing`, { method: 'OPTIONS' })).status).toBe(404);
  });
});

describe('pages of other origins', () => {
  const preflight = (base: string, origin: string, path = MOLECULES) =>
    fetch(`${base}${path}`, {
      method: 'OPTIONS',
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,content-type,connect-protocol-version',
      },
    });

  test('are kept out by default', async () => {
    const response = await preflight(url, CONSOLE);
    expect(response.headers.get('access-control-allow-origin')).toBeNull();
    const answer = await fetch(`${url}/v1/organizations/${ORG}`, { headers: { origin: CONSOLE } });
    expect(answer.headers.get('access-control-allow-origin')).toBeNull();
  });

  test.each([MOLECULES, '/mad.catalog.v1.JobService/GetJob'])(
    'are let in to %s where they are listed',
    async (path) => {
      const response = await preflight(open.url, CONSOLE, path);
      expect(response.status).toBe(204);
      expect(response.headers.get('access-control-allow-origin')).toBe(CONSOLE);
      expect(response.headers.get('access-control-allow-headers')?.toLowerCase()).toContain('connect-protocol-version');
      expect(response.headers.get('access-control-allow-credentials')).toBeNull();
    },
  );

  test('read the answer, errors included, and what they need of its headers', async () => {
    const response = await fetch(`${open.url}/v1/organizations/${ORG}/jobs/${ORG}`, { headers: { origin: CONSOLE } });
    expect(response.status).toBe(404);
    expect(response.headers.get('access-control-allow-origin')).toBe(CONSOLE);
    expect(response.headers.get('access-control-expose-headers')).toContain('Retry-After');
    const call = await fetch(`${open.url}/mad.catalog.v1.JobService/GetJob`, {
      method: 'POST',
      headers: { origin: CONSOLE, 'content-type': 'application/json' },
      body: JSON.stringify({ orgId: ORG, jobId: JOB }),
    });
    expect(call.status).toBe(200);
    expect(call.headers.get('access-control-allow-origin')).toBe(CONSOLE);
  });

  test('are kept out where they are not', async () => {
    const response = await preflight(open.url, 'https://elsewhere.example.org');
    expect(response.headers.get('access-control-allow-origin')).not.toBe('https://elsewhere.example.org');
  });
});

describe('every answer', () => {
  test.each(['/live', '/v1/nothing', `/v1/organizations/${ORG}`, '/docs', '/v1/openapi.json'])(
    'of %s is guarded and has an id',
    async (path) => {
      const { headers } = await fetch(`${url}${path}`, { headers: { 'x-request-id': 'mine-1' } });
      expect(headers.get('x-content-type-options')).toBe('nosniff');
      expect(headers.get('content-security-policy')).toMatch(/^default-src 'none';.*frame-ancestors 'none'/);
      expect(headers.get('referrer-policy')).toBe('no-referrer');
      expect(headers.get('x-request-id')).toBe('mine-1');
    },
  );

  test('has an id of ours where the client sent none, or one that is not clean', async () => {
    for (const given of ['', 'a b', 'x'.repeat(200)]) {
      const { headers } = await fetch(`${url}/live`, { headers: { 'x-request-id': given } });
      expect(headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/);
    }
  });

  test.each([
    ['gzip', gunzipSync],
    ['br', brotliDecompressSync],
  ])('is compressed by %s when it is large', async (encoding, decompress) => {
    const answer = await bytesOf('/v1/openapi.json', encoding);
    expect(answer.encoding).toBe(encoding);
    const text = decompress(answer.body).toString();
    expect(answer.body.length).toBeLessThan(text.length / 5);
    expect(JSON.parse(text)).toHaveProperty('openapi');
    expect((await bytesOf('/live', encoding)).encoding).toBeUndefined();
  });
});

describe('the documentation', () => {
  test('needs nothing that its policy forbids: no inline script or style, nothing from elsewhere', async () => {
    const response = await fetch(`${url}/docs`);
    expect(response.status).toBe(200);
    expect(response.headers.get('content-security-policy')).toContain("script-src 'self'; style-src 'self'");
    const html = await response.text();
    expect(html).not.toMatch(/<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?:/);
    const assets = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path]) => path!);
    expect(assets.length).toBeGreaterThan(4);
    for (const path of assets) {
      const asset = await fetch(new URL(path, `${url}/docs`));
      expect([path, asset.status]).toEqual([path, 200]);
      await asset.arrayBuffer();
    }
  });

  test('is of the document that is served, which a client need not fetch twice', async () => {
    const document = await fetch(`${url}/v1/openapi.json`);
    expect(await (await fetch(`${url}/docs/json`)).json()).toEqual(await document.json());
    const again = await fetch(`${url}/v1/openapi.json`, {
      headers: { 'if-none-match': document.headers.get('etag')! },
    });
    expect(again.status).toBe(304);
  });
});
