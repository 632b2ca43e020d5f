import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { Code } from '@connectrpc/connect';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { sleep } from '@mad/process';
import { failure, startEcho, valid, ways, type Echo } from './harness.ts';

// Connections that say two bytes, or nonsense, and then nothing: other calls go on, and closing does not wait for them.

const beginnings = {
  nothing: '',
  'two bytes of HTTP/2': 'PR',
  'two bytes of HTTP/1.1': 'PO',
  'half the preface': 'PRI * HTTP/2.0\r\n',
  'the whole preface': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  'half a header': 'POST /mad.echo.v1.EchoService/Unary HTTP/1.1\r\nHost: x\r\nContent-',
  'a body that does not come':
    'POST /mad.echo.v1.EchoService/Unary HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{',
};

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

async function say(port: number, text: string): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  sockets.push(socket);
  socket.on('error', () => {}); // being cut is what this is about
  await once(socket, 'connect');
  if (text) socket.write(text);
  return socket;
}

describe.each(Object.entries(beginnings))('%s, then silence', (_name, text) => {
  test('on both ports: other calls still answer, and close() does not wait', async () => {
    const { server } = await startEcho({ drainMs: 500 });
    for (let n = 0; n < 20; n++) await Promise.all([say(server.port, text), say(server.connectPort, text)]);
    await sleep(50);
    for (const open of Object.values(ways)) {
      const way = open(server);
      const start = performance.now();
      expect((await way.client.unary(valid, { timeoutMs: 2000 })).count).toBe(42);
      expect(performance.now() - start).toBeLessThan(1000);
      way.close();
    }
    const start = performance.now();
    await server.close();
    expect(performance.now() - start).toBeLessThan(500 + 1500);
  });
});

describe('what no client would send', () => {
  let echo: Echo;
  beforeAll(async () => {
    echo = await startEcho();
  });
  afterAll(() => echo.server.close());

  const requests = {
    'no Host, HTTP/1.0':
      'POST /grpc.health.v1.Health/Check HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}',
    'a Host that is none':
      'POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: [\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}',
    'an unknown path': 'GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n',
    'no JSON':
      'POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n}{',
    'binary nonsense': '\x00\xff\x16\x03\x01\x02\x00',
    'an upgrade':
      'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n',
  };

  test.each(Object.entries(requests))('%s is refused and the server goes on', async (_name, text) => {
    for (const port of [echo.server.port, echo.server.connectPort]) {
      const socket = await say(port, text);
      const heard: Buffer[] = [];
      socket.on('data', (data: Buffer) => heard.push(data));
      await sleep(100);
      if (port === echo.server.connectPort) expect(Buffer.concat(heard).toString()).toMatch(/^HTTP\/1\.1 4\d\d /);
    }
    const way = ways['our transport, gRPC'](echo.server);
    expect((await way.client.unary(valid)).count).toBe(42);
    way.close();
  });

  test('an illegal metadata value, from either side, fails its own call', async () => {
    const way = ways['our transport, gRPC'](echo.server);
    const error = await failure(way.client.unary(valid, { headers: { 'x-latin': 'é' } }), Code.InvalidArgument);
    expect(error.rawMessage).toContain('x-latin');
    await failure(way.client.unary({ ...valid, mode: 'illegal-header' }), Code.Internal);
    await failure(way.client.unary({ ...valid, mode: 'illegal-error' }), Code.NotFound);
    expect((await way.client.unary(valid)).count).toBe(42);
    way.close();
  });
});
