import { execFile, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { startEcho, valid, type Echo } from './harness.ts';

// What people do without our code: buf curl over reflection, plain JSON over HTTP.

const root = join(import.meta.dirname, '../../..');
const run = promisify(execFile);

let echo: Echo;
beforeAll(async () => {
  echo = await startEcho();
});
afterAll(() => echo.server.close());

const buf = async (path: string, ...args: string[]): Promise<string> => {
  const url = `http://127.0.0.1:${echo.server.port}${path}`;
  const options = ['curl', '--protocol', 'grpc', '--http2-prior-knowledge', ...args, url];
  const { stdout } = await run(join(root, 'node_modules/.bin/buf'), options, { cwd: '/' });
  return stdout;
};

describe('buf curl, gRPC, no schema', () => {
  test.each(['grpc-v1', 'grpc-v1alpha'])('reflection %s lists and calls', async (version) => {
    const reflect = ['--reflect-protocol', version];
    expect(await buf('', ...reflect, '--list-methods')).toContain('mad.echo.v1.EchoService/ServerStream');
    const answer = JSON.parse(await buf('/mad.echo.v1.EchoService/Unary', ...reflect, '-d', JSON.stringify(valid)));
    expect(answer).toMatchObject(valid);
  });

  test('health', async () => {
    expect(JSON.parse(await buf('/grpc.health.v1.Health/Check', '-d', '{}'))).toEqual({ status: 'SERVING' });
  });

  test('a server stream', async () => {
    const answers = await buf('/mad.echo.v1.EchoService/ServerStream', '-d', '{"count": 3}');
    expect(answers.match(/"number": \d/g)).toEqual(['"number": 1', '"number": 2']);
  });

  test.each(['v1', 'v1alpha'])('reflection %s describes itself', async (version) => {
    const request = JSON.stringify({ fileContainingSymbol: 'mad.echo.v1.EchoService' });
    const answer = JSON.parse(
      await buf(`/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`, '-d', request),
    );
    expect(answer).toMatchObject({ fileDescriptorResponse: { fileDescriptorProto: expect.any(Array) } });
  });

  test('an error shows its code, message and details; the exit code is its code times 8', async () => {
    const request = JSON.stringify({ ...valid, mode: 'error' });
    const failed = await buf('/mad.echo.v1.EchoService/Unary', '-d', request).catch((error: unknown) => error);
    expect(failed).toMatchObject({ code: 72 });
    const shown = JSON.parse((failed as { stderr: string }).stderr) as { details: { type: string; value: string }[] };
    expect(shown).toMatchObject({ code: 'failed_precondition', details: [{ type: 'google.rpc.ErrorInfo' }] });
    expect(Buffer.from(shown.details[0]!.value, 'base64').toString()).toContain('QUOTA_EXCEEDED');
  });
});

describe('plain JSON over HTTP/1.1', () => {
  const post = (path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
    fetch(`http://127.0.0.1:${echo.server.connectPort}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    });

  test('health', async () => {
    const response = await post('/grpc.health.v1.Health/Check', {});
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({ status: 'SERVING' });
  });

  test('an error is JSON with code, message and the fields', async () => {
    const response = await post('/mad.echo.v1.EchoService/Unary', { ...valid, count: -1 });
    expect(response.status).toBe(400);
    const answer = (await response.json()) as { code: string; details: { debug: unknown }[] };
    expect(answer.code).toBe('invalid_argument');
    expect(JSON.stringify(answer.details)).toContain('"field":"count"');
  });

  test('an answer after the deadline is none', async () => {
    const headers = { 'connect-timeout-ms': '100' };
    const response = await post('/mad.echo.v1.EchoService/Unary', { ...valid, mode: 'slow' }, headers);
    expect(response.status).toBe(504);
    expect(await response.json()).toMatchObject({ code: 'deadline_exceeded' });
    expect(echo.lines.at(-1)).toMatchObject({ code: 'deadline_exceeded' });
  });

  test('a body over the limit is refused', async () => {
    const response = await post('/mad.echo.v1.EchoService/Unary', { ...valid, data: 'A'.repeat(6_000_000) });
    expect(response.status).toBe(429);
    expect(await response.json()).toMatchObject({ code: 'resource_exhausted' });
  });

  const curl = spawnSync('curl', ['--version']).status === 0;
  (curl ? test : test.skip)('plain curl, where it is installed', async () => {
    const url = `http://127.0.0.1:${echo.server.connectPort}/grpc.health.v1.Health/Check`;
    const { stdout } = await run('curl', ['-sS', '-H', 'content-type: application/json', '-d', '{}', url]);
    expect(JSON.parse(stdout)).toEqual({ status: 'SERVING' });
  });
});
