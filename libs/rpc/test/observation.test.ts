import { Code, createClient, type HandlerContext, type Interceptor } from '@connectrpc/connect';
import { afterEach, describe, expect, test } from '@jest/globals';
import { continueTrace, createLogger, currentSpan, createMetrics, traceparentOf } from '@mad/process';
import { EchoService } from '@mad/proto/echo';
import { bind, callerKey, callOptions, grpcTransport, serveRpc, traceOf, type Caller } from '../src/index.ts';
import { collect, failure, startEcho, until, valid, ways } from './harness.ts';

const open: { close(): unknown }[] = [];
afterEach(async () => {
  for (const one of open.splice(0).toReversed()) await one.close();
});
const keep = <T extends { close(): unknown }>(one: T): T => {
  open.push(one);
  return one;
};

/** Stands in for access control. */
const as =
  (caller: Caller): Interceptor =>
  (next) =>
  (request) => {
    request.contextValues.set(callerKey, caller);
    return next(request);
  };

const user: Caller = { kind: 'user', userId: 'u1', orgId: 'o1', roles: [], permissions: [] };

describe('access log', () => {
  test.each(Object.keys(ways) as (keyof typeof ways)[])('has one line for each call, %s', async (name) => {
    const echo = await startEcho({ interceptors: [as(user)] });
    keep(echo.server);
    const { client } = keep(ways[name](echo.server));
    echo.lines.length = 0;
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    await client.unary(valid, { headers: { traceparent } });
    await failure(client.unary({ ...valid, mode: 'error' }), Code.FailedPrecondition);
    await failure(client.unary({ ...valid, count: -1 }), Code.InvalidArgument);
    await collect(client.serverStream({ count: 10 }));
    await until(() => echo.lines.length === 4);
    const common = { level: 'info', msg: 'rpc', org_id: 'o1', caller: 'user', user_id: 'u1', ms: expect.any(Number) };
    const method = 'mad.echo.v1.EchoService/Unary';
    expect(echo.lines).toMatchObject([
      { ...common, method, code: 'ok', trace_id: '4bf92f3577b34da6a3ce929d0e0e4736' },
      { ...common, method, code: 'failed_precondition', reason: 'QUOTA_EXCEEDED' },
      { ...common, method, code: 'invalid_argument', message: expect.stringContaining('count') },
      { ...common, method: 'mad.echo.v1.EchoService/ServerStream', code: 'ok' },
    ]);
  });

  test('keeps why a neighbour was not reached, which the caller is not told', async () => {
    const inner = createClient(EchoService, keep(grpcTransport('127.0.0.1:1')));
    const lines: Record<string, unknown>[] = [];
    const logger = createLogger('outer', { destination: { write: (line) => void lines.push(JSON.parse(line)) } });
    const outer = await serveRpc({
      service: 'outer',
      host: '127.0.0.1',
      port: 0,
      services: [bind(EchoService, { unary: (_request, ctx) => inner.unary(valid, callOptions(ctx)) })],
      interceptors: [],
      logger,
    });
    keep(outer);
    const { client } = keep(ways['our transport, gRPC'](outer));
    const error = await failure(client.unary(valid, { timeoutMs: 10_000 }), Code.Unavailable);
    expect(error.rawMessage).toBe('mad.echo.v1.EchoService is not reachable');
    expect(lines.at(-1)).toMatchObject({
      code: 'unavailable',
      reason: 'SERVICE_UNAVAILABLE',
      cause: expect.stringMatching(/^127\.0\.0\.1:1: No connection established.*ECONNREFUSED/),
    });
  });

  test('a service is named with the organization of its request', async () => {
    const echo = await startEcho({ interceptors: [as({ kind: 'service', service: 'catalog', userId: 'u2' })] });
    keep(echo.server);
    await keep(ways['our transport, gRPC'](echo.server)).client.askService({ orgId: 'o2' });
    expect(echo.lines.at(-1)).toMatchObject({
      caller: 'service',
      caller_service: 'catalog',
      user_id: 'u2',
      org_id: 'o2',
    });
  });

  // grpc-js answers a request it cannot read, or for an unknown method, before any of our code: only unparsable ones are seen.
  test('requests cut before the handler are seen on the Connect port', async () => {
    const echo = await startEcho();
    keep(echo.server);
    const { client, transport } = keep(ways['Connect client, HTTP/1.1'](echo.server));
    echo.lines.length = 0;
    await failure(client.unary({ ...valid, data: new Uint8Array(5_000_000) }), Code.ResourceExhausted);
    const missing = { ...EchoService.method.unary, name: 'Missing' } as typeof EchoService.method.unary;
    await failure(transport.unary(missing, undefined, undefined, undefined, valid), Code.Unimplemented);
    await until(() => echo.lines.length === 2);
    expect(echo.lines).toMatchObject([
      { msg: 'rpc unreadable', method: 'mad.echo.v1.EchoService/Unary', http_status: 429 },
      { msg: 'rpc unknown', method: 'mad.echo.v1.EchoService/Missing', http_status: 404 },
    ]);
  });
});

test('metrics count calls by method and code', async () => {
  const metrics = createMetrics('echo');
  const { server } = await startEcho({ metrics });
  keep(server);
  const { client } = keep(ways['our transport, gRPC'](server));
  await client.unary(valid);
  await client.unary(valid);
  await failure(client.unary({ ...valid, mode: 'plain-error' }), Code.NotFound);
  const text = await metrics.text();
  const labels = 'rpc_service="mad.echo.v1.EchoService",rpc_method="Unary"';
  expect(text).toContain(`rpc_duration_seconds_count{service="echo",${labels},code="ok"} 2`);
  expect(text).toContain(`rpc_duration_seconds_count{service="echo",${labels},code="not_found"} 1`);
});

describe('trace', () => {
  test('continues a valid traceparent and replaces any other', () => {
    const trace = continueTrace('00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00');
    expect(trace).toMatchObject({
      traceId: '4bf92f3577b34da6a3ce929d0e0e4736',
      parentSpanId: '00f067aa0ba902b7',
      sampled: false,
    });
    expect(traceparentOf(trace)).toBe(`00-4bf92f3577b34da6a3ce929d0e0e4736-${trace.spanId}-00`);
    const bad = [
      null,
      '',
      'x',
      '00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01',
      '00-00000000000000000000000000000000-00f067aa0ba902b7-01',
      '00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01',
      'ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'; --",
    ];
    for (const traceparent of bad) {
      const fresh = continueTrace(traceparent);
      expect(fresh.traceId).toMatch(/^[0-9a-f]{32}$/);
      expect(fresh.parentSpanId).toBeUndefined();
    }
  });
});

describe('a call made while answering another', () => {
  /** A service that asks the next one with `callOptions`. */
  async function relay(
    nextPort: number,
    seen: { trace?: string; around?: string; left?: number },
  ): Promise<{ port: number }> {
    const transport = keep(grpcTransport(`127.0.0.1:${nextPort}`));
    const inner = createClient(EchoService, transport);
    const forward = async (request: { mode: string }, context: HandlerContext) => {
      seen.trace = traceOf(context).traceId;
      seen.left = context.timeoutMs();
      await new Promise((resolve) => setTimeout(resolve, 1));
      seen.around = currentSpan()?.traceId;
      return inner.unary({ ...valid, mode: request.mode }, callOptions(context));
    };
    const server = await serveRpc({
      service: 'relay',
      host: '127.0.0.1',
      port: 0,
      services: [bind(EchoService, { unary: forward })],
      interceptors: [as(user)],
      logger: createLogger('relay', { level: 'silent' }),
    });
    return keep(server);
  }

  test('has its trace, its deadline less 20 ms, and names its user', async () => {
    const last = await startEcho();
    keep(last.server);
    const seen: { trace?: string; around?: string; left?: number } = {};
    const outer = await relay(last.server.port, seen);
    const client = createClient(EchoService, keep(grpcTransport(`127.0.0.1:${outer.port}`)));
    await client.unary(valid, { timeoutMs: 5000 });
    expect(last.lines.at(-1)).toMatchObject({ msg: 'rpc', trace_id: seen.trace });
    // Also for what is far from the context.
    expect(seen.around).toBe(seen.trace);
    expect(currentSpan()).toBeUndefined();
    expect(last.seen.timeoutMs).toBeLessThanOrEqual(seen.left! - 20);
    expect(last.seen.timeoutMs).toBeGreaterThan(4000);
  });

  test('ends when that one is cancelled', async () => {
    const last = await startEcho();
    keep(last.server);
    const outer = await relay(last.server.port, {});
    const client = createClient(EchoService, keep(grpcTransport(`127.0.0.1:${outer.port}`)));
    const controller = new AbortController();
    const call = failure(client.unary({ ...valid, mode: 'hang' }, { signal: controller.signal }), Code.Canceled);
    await until(() => last.seen.calls === 1);
    controller.abort();
    await call;
    await until(() => last.seen.aborts.length === 1);
  });

  test('is not made when no time is left', async () => {
    const last = await startEcho();
    keep(last.server);
    const outer = await relay(last.server.port, {});
    const client = createClient(EchoService, keep(grpcTransport(`127.0.0.1:${outer.port}`)));
    await failure(client.unary(valid, { timeoutMs: 15 }), Code.DeadlineExceeded);
    expect(last.seen.calls).toBe(0);
  });
});
