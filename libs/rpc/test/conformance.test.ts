import { Code, ConnectError, decodeBinaryHeader, encodeBinaryHeader, type Interceptor } from '@connectrpc/connect';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { sleep } from '@mad/process';
import { EchoService } from '@mad/proto/echo';
import { errorMetadataOf, reasonOf, retryAfterMsOf, violationsOf } from '../src/index.ts';
import { TOO_LARGE } from './echo.ts';
import { collect, failure, startEcho, until, valid, ways, type Echo, type Way } from './harness.ts';

/** Proves that interceptors run on every transport and may change the response. */
const marking: Interceptor = (next) => async (request) => {
  const response = await next(request);
  response.header.set('x-marked', request.stream ? 'stream' : 'unary');
  return response;
};

let echo: Echo;
beforeAll(async () => {
  echo = await startEcho({ interceptors: [marking] });
});
afterAll(() => echo.server.close());

async function* chunks(count: number, size = 10, last?: number): AsyncGenerator<{ number: number; data?: Uint8Array }> {
  for (let number = 0; number < count; number++) {
    echo.seen.produced++;
    yield { number, data: new Uint8Array(size) };
  }
  if (last !== undefined) yield { number: last };
}

describe.each(Object.keys(ways) as (keyof typeof ways)[])('%s', (name) => {
  let way: Way;
  const overHttp1 = name === 'Connect client, HTTP/1.1';
  beforeAll(() => {
    way = ways[name](echo.server);
  });
  afterAll(() => way.close());
  beforeEach(() => echo.reset());
  const aborted = (): Promise<void> => until(() => echo.seen.aborts.length > 0);
  const finished = (): Promise<void> => until(() => echo.seen.finished === 1);

  describe('unary', () => {
    test('answers', async () => {
      const response = await way.client.unary({ ...valid, data: new Uint8Array([1, 2, 3]) });
      expect(response).toMatchObject(valid);
      expect([...response.data]).toEqual([1, 2, 3]);
    });

    test('an error arrives whole: code, message, details, metadata', async () => {
      const error = await failure(way.client.unary({ ...valid, mode: 'error' }), Code.FailedPrecondition);
      expect(error.rawMessage).toBe('bad: ünïcode, 100% "x" a/b?c=d&e');
      expect(reasonOf(error)).toBe('QUOTA_EXCEEDED');
      expect(errorMetadataOf(error)).toEqual({ k: 'v' });
      expect(error.metadata.get('x-err')).toBe('e1');
      expect([...decodeBinaryHeader(error.metadata.get('x-err-bin')!)]).toEqual([9, 8, 7]);
    });

    test('an error without details keeps its message', async () => {
      const error = await failure(way.client.unary({ ...valid, mode: 'plain-error' }), Code.NotFound);
      expect(error.rawMessage).toBe('plain: a,b;c %3A 100% ü');
    });

    test('field violations and retry delays arrive', async () => {
      const invalid = await failure(way.client.unary({ ...valid, mode: 'invalid' }), Code.InvalidArgument);
      expect(violationsOf(invalid)).toEqual([{ field: 'slug', description: 'is taken' }]);
      const busy = await failure(way.client.unary({ ...valid, mode: 'retry' }), Code.ResourceExhausted);
      expect(retryAfterMsOf(busy)).toBe(1500);
    });

    test('a crash says nothing to the caller and everything to the log', async () => {
      echo.lines.length = 0;
      const error = await failure(way.client.unary({ ...valid, mode: 'crash' }), Code.Internal);
      expect(error.rawMessage).toBe('internal error');
      expect(JSON.stringify(error.details)).not.toContain('secret');
      expect(echo.lines).toMatchObject([
        { level: 'error', code: 'internal', error: { cause: { message: 'secret detail' } } },
      ]);
    });

    test('a method without handler, and one that does not exist', async () => {
      await failure(way.client.askUser({}), Code.Unimplemented);
      const missing = { ...EchoService.method.unary, name: 'Missing' } as typeof EchoService.method.unary;
      await failure(way.transport.unary(missing, undefined, undefined, undefined, valid), Code.Unimplemented);
    });

    test('headers and trailers travel both ways, binary ones too', async () => {
      let header = new Headers();
      let trailer = new Headers();
      const bytes = encodeBinaryHeader(new Uint8Array([0, 1, 254, 255]));
      const headers = { 'x-in': 'hello', 'x-in-bin': bytes };
      const onHeader = (received: Headers): void => void (header = received);
      const onTrailer = (received: Headers): void => void (trailer = received);
      await way.client.unary({ ...valid, mode: 'meta' }, { headers, onHeader, onTrailer });
      expect(header.get('x-echo')).toBe('hello');
      expect([...decodeBinaryHeader(header.get('x-echo-bin')!)]).toEqual([0, 1, 254, 255]);
      expect(header.get('x-marked')).toBe('unary');
      expect(trailer.get('x-trail')).toBe('tr');
      expect([...decodeBinaryHeader(trailer.get('x-trail-bin')!)]).toEqual([0, 255, 128]);
    });

    test('the timeout reaches the handler', async () => {
      await way.client.unary(valid, { timeoutMs: 5000 });
      expect(echo.seen.timeoutMs).toBeGreaterThan(4000);
      expect(echo.seen.timeoutMs).toBeLessThanOrEqual(5000);
    });

    test('a passed deadline ends the call on both sides', async () => {
      await failure(way.client.unary({ ...valid, mode: 'hang' }, { timeoutMs: 80 }), Code.DeadlineExceeded);
      await aborted();
      // Over HTTP/1.1 the client's own timer cuts the connection, and may be first.
      if (!overHttp1) expect(ConnectError.from(echo.seen.aborts[0]).code).toBe(Code.DeadlineExceeded);
    });

    test('a cancelled call reaches the handler, and is logged as cancelled', async () => {
      echo.lines.length = 0;
      const controller = new AbortController();
      setTimeout(() => controller.abort(), 60);
      await failure(way.client.unary({ ...valid, mode: 'hang' }, { signal: controller.signal }), Code.Canceled);
      await aborted();
      await until(() => echo.lines.some(({ msg }) => msg === 'rpc'));
      expect(echo.lines.map(({ code }) => code)).toEqual(['canceled']);
    });

    test('a call that is cancelled before it starts is not made', async () => {
      await failure(way.client.unary(valid, { signal: AbortSignal.abort() }), Code.Canceled);
      await sleep(20);
      expect(echo.seen.calls).toBe(0);
    });
  });

  describe('validation', () => {
    test('names every wrong field as the proto spells it', async () => {
      const wrong = { ...valid, id: 'x', count: -1, tags: ['ok', ''] };
      const error = await failure(way.client.unary(wrong), Code.InvalidArgument);
      expect(violationsOf(error)).toEqual([
        { field: 'id', description: expect.stringContaining('UUID') },
        { field: 'count', description: expect.any(String) },
        { field: 'tags[1]', description: expect.any(String) },
      ]);
      expect(error.rawMessage).toContain('count: ');
      expect(echo.seen.calls).toBe(0);
    });

    test('text is checked as text, whatever it contains', async () => {
      for (const slug of ["x'; DROP TABLE users; --", 'UPPER', 'ünïcode', 'nul\0', '']) {
        const error = await failure(way.client.unary({ ...valid, slug }), Code.InvalidArgument);
        expect(new Set(violationsOf(error).map(({ field }) => field))).toEqual(new Set(['slug']));
      }
    });

    test('a server stream', async () => {
      const error = await failure(collect(way.client.serverStream({ count: -1 })), Code.InvalidArgument);
      expect(violationsOf(error)[0]?.field).toBe('count');
    });

    test('each message inside a client stream', async () => {
      async function* rows(): AsyncGenerator<{ ids: string[] }> {
        yield { ids: ['a'] };
        yield { ids: ['b', ''] };
      }
      const error = await failure(way.client.submitBulk(rows()), Code.InvalidArgument);
      expect(violationsOf(error)[0]?.field).toBe('ids[1]');
    });
  });

  describe('server stream', () => {
    test('delivers all messages, header and trailer', async () => {
      let header = new Headers();
      let trailer = new Headers();
      const onHeader = (received: Headers): void => void (header = received);
      const onTrailer = (received: Headers): void => void (trailer = received);
      const got = await collect(way.client.serverStream({ count: 1000, size: 100 }, { onHeader, onTrailer }));
      expect(got.map(({ number }) => number)).toEqual(Array.from({ length: 1000 }, (_, n) => n));
      expect(header.get('x-stream')).toBe('h');
      expect(header.get('x-marked')).toBe('stream');
      expect(trailer.get('x-trail')).toBe('tr');
    });

    test('may be empty', async () => {
      expect(await collect(way.client.serverStream({ count: 0 }))).toEqual([]);
    });

    // A reader that is behind loses messages before the error on grpc-js (grpc/grpc-node#2764, open): three arrive at once.
    test('an error after messages arrives whole', async () => {
      const got: number[] = [];
      const reading = (async () => {
        for await (const { number } of way.client.serverStream({ count: 3, mode: 'error' })) got.push(number);
      })();
      const error = await failure(reading, Code.FailedPrecondition);
      expect(got).toEqual([0, 1, 2]);
      expect(reasonOf(error)).toBe('QUOTA_EXCEEDED');
      expect(error.metadata.get('x-err')).toBe('e1');
    });

    test('a passed deadline ends it on both sides', async () => {
      const got: number[] = [];
      const reading = (async () => {
        const stream = way.client.serverStream({ mode: 'hang' }, { timeoutMs: 120 });
        for await (const { number } of stream) got.push(number);
      })();
      await failure(reading, Code.DeadlineExceeded);
      expect(got).toEqual([0]);
      await aborted();
      await finished();
    });

    test('a cancelled one stops its handler', async () => {
      const controller = new AbortController();
      setTimeout(() => controller.abort(), 60);
      const stream = way.client.serverStream({ mode: 'hang' }, { signal: controller.signal });
      await failure(collect(stream), Code.Canceled);
      await aborted();
      await finished();
    });

    // Leaving the loop does not cancel: Connect's client hides return() (connectrpc/connect-es). Streams end by a signal.
    test('leaving the loop and aborting the signal stops a handler in the middle', async () => {
      const controller = new AbortController();
      const stream = way.client.serverStream({ count: 1_000_000, size: 1000 }, { signal: controller.signal });
      for await (const { number } of stream) if (number === 5) break;
      controller.abort();
      await finished();
      expect(echo.seen.produced).toBeLessThan(100_000);
    });

    test('a slow reader holds the handler back', async () => {
      let got = 0;
      let ahead = 0;
      for await (const { data } of way.client.serverStream({ count: 20_000, size: 1000 })) {
        expect(data).toHaveLength(1000);
        got++;
        if (got === 500) await sleep(300);
        else if (got % 200 === 0) await sleep(0);
        if (got % 100 === 0) ahead = Math.max(ahead, echo.seen.produced - got);
      }
      expect(got).toBe(20_000);
      // Our client's window of 4 MiB, and what sockets hold.
      expect(ahead).toBeLessThan(15_000);
    });
  });

  describe('client stream', () => {
    test('delivers all messages', async () => {
      const response = await way.client.clientStream(chunks(1000, 100));
      expect(response).toMatchObject({ count: 1000n, bytes: 100_000n, note: 'all' });
    });

    test('may be empty', async () => {
      expect((await way.client.clientStream(chunks(0))).count).toBe(0n);
    });

    test("the handler's error arrives", async () => {
      const error = await failure(way.client.clientStream(chunks(3, 10, -1)), Code.FailedPrecondition);
      expect(reasonOf(error)).toBe('QUOTA_EXCEEDED');
    });

    test('the handler may answer before the end', async () => {
      expect((await way.client.clientStream(chunks(3, 10, -2))).note).toBe('early');
    });

    test('a producer that throws cancels the handler', async () => {
      async function* failing(): AsyncGenerator<{ number: number }> {
        yield { number: 1 };
        await sleep(50);
        throw new ConnectError('mine', Code.DataLoss);
      }
      await failure(way.client.clientStream(failing()), Code.DataLoss);
      await finished();
    });

    // Whether the handler sees the cancellation or an early end is a race on the wire (see END_GRACE_MS): Node's clients
    // end the stream before they reset it. That it ends, and that nobody is told of success, is certain.
    test('a cancelled one stops its handler', async () => {
      const controller = new AbortController();
      async function* endless(): AsyncGenerator<{ number: number }> {
        yield { number: 1 };
        await sleep(60);
        controller.abort();
        await sleep(500);
      }
      await failure(way.client.clientStream(endless(), { signal: controller.signal }), Code.Canceled);
      await finished();
    });

    test('a slow handler holds the producer back', async () => {
      let ahead = 0;
      const watch = setInterval(() => {
        ahead = Math.max(ahead, echo.seen.produced - echo.seen.consumed);
      }, 10);
      async function* many(): AsyncGenerator<{ number: number; data: Uint8Array }> {
        for (let number = 0; number < 20_000; number++) {
          echo.seen.produced++;
          yield { number: number % 500 === 0 ? -3 : number, data: new Uint8Array(1000) };
        }
      }
      const response = await way.client.clientStream(many());
      clearInterval(watch);
      expect(response.count).toBe(20_000n);
      expect(ahead).toBeLessThan(10_000);
    });
  });

  // HTTP/1.1 has no full duplex: Connect refuses such a method there, and the client has no code for HTTP 505.
  const bidirectional = (): void => {
    test('answers each message before the next is sent', async () => {
      let release = (): void => {};
      const got: number[] = [];
      async function* questions(): AsyncGenerator<{ number: number }> {
        for (let number = 0; number < 20; number++) {
          yield { number };
          await new Promise<void>((resolve) => (release = resolve));
        }
      }
      for await (const { number } of way.client.bidiStream(questions())) {
        got.push(number);
        await sleep(1);
        release();
      }
      expect(got).toEqual(Array.from({ length: 20 }, (_, n) => n + 1));
    });

    test('delivers many messages', async () => {
      expect(await collect(way.client.bidiStream(chunks(2000, 100)))).toHaveLength(2000);
    });

    test("the handler's error arrives", async () => {
      await failure(collect(way.client.bidiStream(chunks(5, 10, -1))), Code.FailedPrecondition);
    });

    test('a cancelled one stops its handler', async () => {
      const controller = new AbortController();
      async function* two(): AsyncGenerator<{ number: number }> {
        yield { number: 1 };
        await sleep(60);
        controller.abort();
        await sleep(300);
      }
      await failure(collect(way.client.bidiStream(two(), { signal: controller.signal })), Code.Canceled);
      await finished();
    });
  };
  if (overHttp1) {
    test('a bidirectional stream is refused', async () => {
      await failure(collect(way.client.bidiStream(chunks(5))), Code.Unknown);
      expect(echo.seen.consumed).toBe(0);
    });
  } else {
    describe('bidirectional stream', bidirectional);
  }

  describe('messages over the limit', () => {
    test('a request', async () => {
      await failure(way.client.unary({ ...valid, data: new Uint8Array(TOO_LARGE) }), Code.ResourceExhausted);
      expect(echo.seen.calls).toBe(0);
    });

    test('a message of a client stream', async () => {
      await failure(way.client.clientStream(chunks(1, TOO_LARGE)), Code.ResourceExhausted);
    });

    test('a response', async () => {
      await failure(way.client.unary({ ...valid, mode: 'big' }), Code.ResourceExhausted);
    });

    test('the connection still works', async () => {
      expect((await way.client.unary(valid)).count).toBe(42);
    });
  });
});
