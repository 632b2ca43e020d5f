import { getEventListeners, once } from 'node:events';
import { connect } from 'node:http2';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { Code, createClient } from '@connectrpc/connect';
import { afterEach, describe, expect, test } from '@jest/globals';
import { sleep } from '@mad/process';
import { EchoService } from '@mad/proto/echo';
import { Health, HealthCheckResponse_ServingStatus as Status } from '@mad/proto/health';
import { errorMetadataOf, grpcTransport, reasonOf, type GrpcTransport } from '../src/index.ts';
import { collect, failure, startEcho, until, valid, ways, type Echo, type Way } from './harness.ts';

const open: { close(): unknown }[] = [];
afterEach(async () => {
  for (const one of open.splice(0).toReversed()) await one.close();
});

async function start(options: Parameters<typeof startEcho>[0] = {}): Promise<Echo> {
  const echo = await startEcho({ drainMs: 300, ...options });
  open.push(echo.server);
  return echo;
}

function call(echo: Echo, name: keyof typeof ways): Way {
  const way = ways[name](echo.server);
  open.push(way);
  return way;
}

async function durationMs(run: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await run();
  return performance.now() - start;
}

describe.each(['our transport, gRPC', 'Connect client, HTTP/1.1'] as const)('close, %s', (name) => {
  test('waits for a call in flight, and no longer', async () => {
    const echo = await start({ drainMs: 5000 });
    const { client } = call(echo, name);
    const slow = client.unary({ ...valid, mode: 'slow' });
    await until(() => echo.seen.calls === 1);
    expect(await durationMs(() => echo.server.close())).toBeLessThan(2000);
    expect((await slow).count).toBe(42);
  });

  test('ends a call that goes on with UNAVAILABLE after drainMs', async () => {
    const echo = await start();
    const { client } = call(echo, name);
    const stream = failure(collect(client.serverStream({ mode: 'hang' }, { timeoutMs: 20_000 })), Code.Unavailable);
    await sleep(100);
    const took = await durationMs(() => echo.server.close());
    expect(took).toBeGreaterThan(250);
    expect(took).toBeLessThan(2500);
    await stream;
    expect(echo.seen.aborts).toHaveLength(1);
  });
});

test('an idle server closes at once, connections or not', async () => {
  const echo = await start({ drainMs: 5000 });
  for (const name of Object.keys(ways) as (keyof typeof ways)[]) await call(echo, name).client.unary(valid);
  expect(await durationMs(() => echo.server.close())).toBeLessThan(1000);
});

test('a transport finds a server that restarted on its port within a second', async () => {
  const first = await start();
  const { client } = call(first, 'our transport, gRPC');
  await client.unary(valid);
  await first.server.close();
  await failure(client.unary(valid, { timeoutMs: 500 }), Code.Unavailable);
  await start({ port: first.server.port, connectPort: 0 });
  const took = await durationMs(async () => {
    for (;;) {
      try {
        return await client.unary(valid, { timeoutMs: 500 });
      } catch {
        await sleep(10);
      }
    }
  });
  expect(took).toBeLessThan(1000);
});

test('a port that is taken is an error, and nothing stays open', async () => {
  const first = await start();
  const { port, connectPort } = first.server;
  await expect(startEcho({ port })).rejects.toThrow();
  await expect(startEcho({ port: 0, connectPort })).rejects.toThrow('EADDRINUSE');
  const { client } = call(first, 'our transport, gRPC');
  expect((await client.unary(valid)).count).toBe(42);
});

test('500 calls at once on one connection', async () => {
  const { client } = call(await start(), 'our transport, gRPC');
  const answers = await Promise.all(Array.from({ length: 500 }, () => client.unary({ ...valid, mode: 'slow' })));
  expect(answers).toHaveLength(500);
});

test('calls leave no listener on the signal of their caller', async () => {
  const { client } = call(await start(), 'our transport, gRPC');
  const { signal } = new AbortController();
  for (let round = 0; round < 20; round++) {
    await Promise.all(Array.from({ length: 50 }, () => client.unary(valid, { signal })));
    await collect(client.serverStream({ count: 3 }, { signal }));
  }
  expect(getEventListeners(signal, 'abort')).toHaveLength(0);
});

test('an abandoned producer is told to clean up', async () => {
  const { client } = call(await start(), 'our transport, gRPC');
  const controller = new AbortController();
  let cleaned = false;
  async function* endless(): AsyncGenerator<{ number: number }> {
    try {
      for (let number = 0; ; number++) {
        yield { number };
        await sleep(5);
      }
    } finally {
      cleaned = true;
    }
  }
  setTimeout(() => controller.abort(), 50);
  await failure(client.clientStream(endless(), { signal: controller.signal }), Code.Canceled);
  await until(() => cleaned);
});

// Half an upload must not pass for the whole.
test('an upload whose connection breaks fails its handler', async () => {
  const echo = await start();
  echo.lines.length = 0;
  const uploads = 20;
  for (let n = 0; n < uploads; n++) {
    const session = connect(`http://127.0.0.1:${echo.server.port}`);
    session.on('error', () => {});
    const upload = session.request({
      ':method': 'POST',
      ':path': '/mad.echo.v1.EchoService/ClientStream',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    upload.on('error', () => {});
    upload.write(Buffer.from([0, 0, 0, 0, 2, 8, 1])); // one message: number 1
    await until(() => echo.seen.consumed === n + 1);
    session.socket.destroy();
  }
  await until(() => echo.lines.length === uploads);
  expect(new Set(echo.lines.map(({ code }) => code))).toEqual(new Set(['canceled']));
});

/** Listens and never says a word. */
async function listenSilently(): Promise<{ port: number; close(): Promise<void> }> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => void sockets.push(socket.on('error', () => {})));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const close = async (): Promise<void> => {
    if (!server.listening) return;
    for (const socket of sockets) socket.destroy();
    await once(server.close(), 'close');
  };
  open.push({ close });
  return { port: (server.address() as AddressInfo).port, close };
}

function impatient(port: number): GrpcTransport {
  const transport = grpcTransport(`127.0.0.1:${port}`, { connectTimeoutMs: 200 });
  open.push(transport);
  return transport;
}

describe('a service that is away', () => {
  const away = 'mad.echo.v1.EchoService is not reachable';

  test.each(['127.0.0.1:1', 'nobody.invalid:7001'])(
    'is told without its address (%s), which the cause keeps',
    async (address) => {
      const transport = grpcTransport(address);
      open.push(transport);
      const client = createClient(EchoService, transport);
      for (const call of [
        () => client.unary(valid, { timeoutMs: 10_000 }),
        () => collect(client.serverStream({ count: 1 }, { timeoutMs: 10_000 })),
      ]) {
        const error = await failure(call(), Code.Unavailable);
        expect([error.rawMessage, reasonOf(error)]).toEqual([away, 'SERVICE_UNAVAILABLE']);
        expect(errorMetadataOf(error)).toEqual({ service: 'mad.echo.v1.EchoService' });
        expect((error.cause as Error).message).toContain(address);
      }
    },
  );

  // Frozen processes and vanished hosts look the same: a connection that never comes about.
  test('and accepts connections without a word is given up after the connect timeout, again and again', async () => {
    const silent = await listenSilently();
    const client = createClient(EchoService, impatient(silent.port));
    for (let attempt = 0; attempt < 3; attempt += 1) {
      const calls = [client.unary(valid), client.unary(valid), collect(client.serverStream({ count: 1 }))];
      const errors = calls.map((one) => failure(one, Code.Unavailable));
      const took = await durationMs(() => Promise.all(errors));
      for (const error of await Promise.all(errors)) {
        expect(error.rawMessage).toBe(away);
        expect((error.cause as Error).message).toBe(`127.0.0.1:${silent.port}: no connection within 200 ms`);
      }
      expect(took).toBeGreaterThan(150);
      expect(took).toBeLessThan(1500);
    }
  });

  test('is found again by the transport that gave it up', async () => {
    const silent = await listenSilently();
    const client = createClient(EchoService, impatient(silent.port));
    await failure(client.unary(valid), Code.Unavailable);
    await silent.close();
    await start({ port: silent.port, connectPort: 0 });
    expect((await client.unary(valid)).count).toBe(42);
  });

  test("leaves a server's own UNAVAILABLE as it is", async () => {
    const echo = await start();
    const { client } = call(echo, 'our transport, gRPC');
    const hanging = failure(collect(client.serverStream({ mode: 'hang' }, { timeoutMs: 20_000 })), Code.Unavailable);
    await sleep(100);
    await echo.server.close();
    expect((await hanging).rawMessage).toBe('the server is shutting down');
  });
});

test('the default timeout ends a call that names none', async () => {
  const { server } = await start();
  const transport = grpcTransport(`127.0.0.1:${server.port}`, { defaultTimeoutMs: 100, defaultStreamTimeoutMs: 150 });
  open.push(transport);
  const client = createClient(EchoService, transport);
  await failure(client.unary({ ...valid, mode: 'hang' }), Code.DeadlineExceeded);
  await failure(collect(client.serverStream({ mode: 'hang' })), Code.DeadlineExceeded);
});

test('health: serving, unknown services, and the watch of a server that drains', async () => {
  const echo = await start({ drainMs: 5000 });
  const health = createClient(Health, call(echo, 'our transport, gRPC').transport);
  expect((await health.check({})).status).toBe(Status.SERVING);
  expect((await health.check({ service: 'mad.echo.v1.EchoService' })).status).toBe(Status.SERVING);
  await failure(health.check({ service: 'mad.echo.v1.Nothing' }), Code.NotFound);
  const watched = collect(health.watch({}));
  await sleep(50);
  expect(await durationMs(() => echo.server.close())).toBeLessThan(1000);
  expect((await watched).map(({ status }) => status)).toEqual([Status.SERVING, Status.NOT_SERVING]);
});
