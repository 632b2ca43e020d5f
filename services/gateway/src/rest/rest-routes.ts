import { Readable } from 'node:stream';
import type { DescMethodStreaming, DescMethodUnary, JsonValue, Message, Registry } from '@bufbuild/protobuf';
import { toJson } from '@bufbuild/protobuf';
import { Code, ConnectError, type Transport } from '@connectrpc/connect';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from '@mad/process';
import type { Upstreams } from '../upstreams.ts';
import { bindingsOf, type Binding } from './binding.ts';
import { EdgeRefusal, problemOf } from './problem.ts';
import { requestMessage } from './request-message.ts';
import { SegmentTrie } from './segment-trie.ts';

/** What the REST routes need of the gateway. */
export interface RestOptions {
  upstreams: Upstreams;
  registry: Registry;
  logger: Logger;
  /** Headers of the inner call: the caller's credentials, the trace; never what a client could forge. */
  innerHeaders(request: FastifyRequest): Promise<Headers>;
  /** Milliseconds a request may take, streams aside. */
  timeoutMs: number;
}

/** Serves every annotated RPC of the upstreams under /v1 as REST: one trie, one handler, no hand-written route. */
export function restRoutes(app: FastifyInstance, options: RestOptions): void {
  const trie = new SegmentTrie<Binding & { transport: Transport }>();
  for (const { service, transport } of options.upstreams.services) {
    for (const binding of bindingsOf(service))
      trie.add(binding.httpMethod, binding.template, { ...binding, transport });
  }
  app.removeAllContentTypeParsers();
  app.addContentTypeParser<string>(/^application\/(.+\+)?json/, { parseAs: 'string' }, (_request, text, done) => {
    try {
      done(null, text === '' ? undefined : JSON.parse(text));
    } catch (error) {
      done(new EdgeRefusal(`malformed JSON: ${(error as Error).message}`, Code.InvalidArgument, 400));
    }
  });
  app.setErrorHandler((error, request, reply) => sendProblem(error, request, reply, options));

  app.all('/v1/*', async (request, reply) => {
    const [path = '', query = ''] = request.url.split('?', 2);
    const found = trie.find(request.method === 'HEAD' ? 'GET' : request.method, path);
    if (!found) throw new EdgeRefusal(`no such resource: ${path}`, Code.NotFound, 404);
    if ('allow' in found) {
      reply.header('allow', found.allow.join(', '));
      throw new EdgeRefusal(`${request.method} is not allowed here`, Code.Unimplemented, 405);
    }
    const { value: binding, segments } = found;
    const message = requestMessage(
      binding,
      { segments, query: new URLSearchParams(query), body: request.body as JsonValue | undefined },
      options.registry,
    );
    const gone = new AbortController();
    reply.raw.once('close', () => {
      if (!reply.raw.writableFinished) gone.abort(new ConnectError('the client went away', Code.Canceled));
    });
    const header = await options.innerHeaders(request);
    return binding.method.methodKind === 'unary'
      ? answerOnce(binding, binding.method as DescMethodUnary, { message, header, signal: gone.signal, reply, options })
      : answerStream(binding, binding.method as DescMethodStreaming, {
          message,
          header,
          signal: gone.signal,
          reply,
          options,
          wantsEvents: request.headers.accept?.includes('text/event-stream') ?? false,
          path,
        });
  });
}

interface Call {
  message: Message;
  header: Headers;
  signal: AbortSignal;
  reply: FastifyReply;
  options: RestOptions;
}

async function answerOnce({ transport }: { transport: Transport }, method: DescMethodUnary, call: Call) {
  const { message, header, signal, reply, options } = call;
  const response = await transport.unary(method, signal, options.timeoutMs, header, message);
  return reply.type('application/json').send(JSON.stringify(jsonOf(response.message, method, options.registry)));
}

interface StreamCall extends Call {
  wantsEvents: boolean;
  path: string;
}

/** NDJSON (`{"result":…}` or a last `{"error":problem}` per line), or server-sent events where the client asks for them. */
async function answerStream({ transport }: { transport: Transport }, method: DescMethodStreaming, call: StreamCall) {
  const { message, header, signal, reply, options, wantsEvents, path } = call;
  const response = await transport.stream(method, signal, undefined, header, once(message) as never);
  const messages = response.message[Symbol.asyncIterator]();
  // The first message is awaited before the status is sent, so an early error keeps its true status.
  const first = await messages.next();
  const lines = async function* () {
    try {
      for (let next = first; !next.done; next = await messages.next()) {
        const json = JSON.stringify(jsonOf(next.value, method, options.registry));
        yield wantsEvents ? `data: ${json}\n\n` : `{"result":${json}}\n`;
      }
      if (wantsEvents) yield 'event: end\ndata: {}\n\n';
    } catch (error) {
      if (signal.aborted) return;
      const problem = JSON.stringify(problemOf(error, path, options.registry));
      yield wantsEvents ? `event: error\ndata: ${problem}\n\n` : `{"error":${problem}}\n`;
    }
  };
  return reply
    .header('cache-control', 'no-store')
    .header('x-accel-buffering', 'no')
    .type(wantsEvents ? 'text/event-stream' : 'application/x-ndjson')
    .send(Readable.from(lines()));
}

async function* once<T>(value: T): AsyncGenerator<T> {
  yield value;
}

function jsonOf(message: Message, method: DescMethodUnary | DescMethodStreaming, registry: Registry): JsonValue {
  return toJson(method.output, message as never, { registry, alwaysEmitImplicit: true });
}

/** Answers an error as problem JSON; an error that is no refusal is a bug, logged with its cause. */
export function sendProblem(
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  { registry, logger }: Pick<RestOptions, 'registry' | 'logger'>,
) {
  const problem = problemOf(error, request.url.split('?')[0]!, registry);
  if (!(error instanceof ConnectError) && problem.status === 500) logger.error({ error }, 'request failed');
  if (problem.status === 401) reply.header('www-authenticate', 'Bearer');
  if (problem.retryAfter !== undefined) reply.header('retry-after', String(problem.retryAfter));
  return reply.code(problem.status).type('application/problem+json').send(JSON.stringify(problem));
}
