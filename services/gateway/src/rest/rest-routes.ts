import type { DescMethodUnary, JsonValue } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { bindingsOf } from './binding.ts';
import { jsonText, type Call, type RestOptions, type Route } from './call.ts';
import { LAST_EVENT_ID } from './cursor.ts';
import { EdgeRefusal } from './problem.ts';
import { requestMessage } from './request-message.ts';
import { SegmentTrie } from './segment-trie.ts';
import { sendProblem } from './send-problem.ts';
import { answerStream } from './stream-answer.ts';

/** A request that found its route and was let in. */
interface Admitted {
  route: Route;
  segments: string[];
  query: string;
  header: Headers;
}

/** Serves every annotated RPC of the upstreams under /v1 as REST: one trie, one handler, no hand-written route. */
export function restRoutes(app: FastifyInstance, options: RestOptions): void {
  const trie = new SegmentTrie<Route>();
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

  // A request is refused before its body is read.
  const admitted = new WeakMap<FastifyRequest, Admitted>();
  app.addHook('onRequest', async (request, reply) => {
    const [path = '', query = ''] = request.url.split('?', 2);
    const found = trie.find(request.method === 'HEAD' ? 'GET' : request.method, path);
    if (!found) throw new EdgeRefusal(`no such resource: ${path}`, Code.NotFound, 404);
    // A stream has no HEAD: it would have to be opened to know its answer.
    const isHeadOfStream = request.method === 'HEAD' && 'value' in found && found.value.method.methodKind !== 'unary';
    if ('allow' in found || isHeadOfStream) {
      await refuseMethod(request, reply, 'allow' in found ? found.allow : ['GET']);
      return;
    }
    const { value: route, segments } = found;
    const encoding = request.headers['content-encoding'];
    if (encoding !== undefined && encoding !== 'identity') {
      throw new EdgeRefusal(`content-encoding ${encoding} is not accepted`, Code.InvalidArgument, 415);
    }
    admitted.set(request, { route, segments, query, header: await options.admit(request, route) });
  });

  app.all('/v1/*', async (request, reply) => {
    const { route, segments, query, header } = admitted.get(request)!;
    const lastEventId = request.headers[LAST_EVENT_ID];
    const message = requestMessage(
      route,
      {
        segments,
        query: new URLSearchParams(query),
        body: request.body as JsonValue | undefined,
        lastEventId: typeof lastEventId === 'string' ? lastEventId : undefined,
      },
      options.registry,
    );
    const gone = new AbortController();
    reply.raw.once('close', () => {
      if (!reply.raw.writableFinished) gone.abort(new ConnectError('the client went away', Code.Canceled));
    });
    const call: Call = { route, message, header, gone, request, reply, options };
    return route.method.methodKind === 'unary' ? answerOnce(call) : answerStream(call);
  });
}

/** OPTIONS says what a path has; any other method that it lacks is refused, saying the same. */
async function refuseMethod(request: FastifyRequest, reply: FastifyReply, allow: string[]): Promise<void> {
  const methods = [...new Set([...allow, ...(allow.includes('GET') ? ['HEAD'] : []), 'OPTIONS'])];
  reply.header('allow', methods.join(', '));
  if (request.method !== 'OPTIONS') {
    throw new EdgeRefusal(`${request.method} is not allowed here`, Code.Unimplemented, 405);
  }
  await reply.code(204).send();
}

async function answerOnce({ route, message, header, gone, reply, options }: Call): Promise<FastifyReply> {
  const method = route.method as DescMethodUnary;
  const stop = () => gone.abort(options.callsEnd.reason);
  options.callsEnd.addEventListener('abort', stop);
  try {
    const response = await route.transport.unary(method, gone.signal, options.timeoutMs, header, message);
    return reply.type('application/json').send(jsonText(route, response.message, options.registry));
  } finally {
    options.callsEnd.removeEventListener('abort', stop);
  }
}
