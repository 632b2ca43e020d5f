import type { DescMethod, DescMethodStreaming, DescMethodUnary } from '@bufbuild/protobuf';
import type { ConnectRouter, HandlerContext, Transport } from '@connectrpc/connect';
import { isForOutside } from './rest/binding.ts';
import type { Upstreams } from './upstreams.ts';

/** Response headers that belong to one hop and are not passed on. */
const HOP = /^(connection|date|transfer-encoding|trailer|te|keep-alive|content-|grpc-|connect-)/;

/** What the passthrough needs of the gateway. */
export interface PassthroughOptions {
  upstreams: Upstreams;
  /** Lets a call in and makes the inner call's headers; nothing else a client sent goes inward. */
  admit: (ctx: HandlerContext) => Promise<Headers>;
  /** Aborted when the gateway ends: streams of responses end with its reason, and clients open them again. */
  streamsEnd: AbortSignal;
}

/**
 * Serves the upstream services to Connect and gRPC-web clients by forwarding each call. What only services may call has
 * no route here.
 */
export function passthrough(options: PassthroughOptions): (router: ConnectRouter) => void {
  return (router) => {
    for (const { service, transport } of options.upstreams.services) {
      for (const method of service.methods.filter(isForOutside)) {
        router.rpc(method as DescMethodUnary, forward(method, transport, options) as never);
      }
    }
  };
}

function forward(method: DescMethod, transport: Transport, { admit, streamsEnd }: PassthroughOptions) {
  if (method.methodKind === 'unary') {
    return async (request: never, ctx: HandlerContext) => {
      const unary = method as DescMethodUnary;
      const response = await transport.unary(unary, ctx.signal, ctx.timeoutMs(), await admit(ctx), request);
      passHeaders(response.header, ctx.responseHeader);
      return response.message;
    };
  }
  const responses = async function* (request: unknown, ctx: HandlerContext, signal: AbortSignal) {
    const input = method.methodKind === 'server_streaming' ? once(request) : (request as AsyncIterable<unknown>);
    const streaming = method as DescMethodStreaming;
    const header = await admit(ctx);
    const response = await transport.stream(streaming, signal, ctx.timeoutMs(), header, input as never);
    passHeaders(response.header, ctx.responseHeader);
    yield* response.message;
  };
  if (method.methodKind === 'client_streaming') {
    return async (request: unknown, ctx: HandlerContext) => {
      for await (const response of responses(request, ctx, ctx.signal)) return response;
      throw new Error(`${method.toString()} ended without a response`);
    };
  }
  return async function* (request: unknown, ctx: HandlerContext) {
    const ended = new AbortController();
    const end = () => ended.abort(streamsEnd.reason);
    const leave = () => ended.abort(ctx.signal.reason);
    streamsEnd.addEventListener('abort', end);
    ctx.signal.addEventListener('abort', leave);
    try {
      streamsEnd.throwIfAborted();
      yield* responses(request, ctx, ended.signal);
    } catch (error) {
      throw streamsEnd.aborted ? streamsEnd.reason : error;
    } finally {
      streamsEnd.removeEventListener('abort', end);
      ctx.signal.removeEventListener('abort', leave);
    }
  };
}

async function* once<T>(value: T): AsyncGenerator<T> {
  yield value;
}

function passHeaders(from: Headers, to: Headers): void {
  from.forEach((value, name) => {
    if (!HOP.test(name)) to.set(name, value);
  });
}
