import type { DescMethod, DescMethodStreaming, DescMethodUnary } from '@bufbuild/protobuf';
import type { ConnectRouter, HandlerContext, Transport } from '@connectrpc/connect';
import { accessRuleOf } from '@mad/auth';
import { Audience } from '@mad/proto/access';
import type { Upstreams } from './upstreams.ts';

/** Response headers that belong to one hop and are not passed on. */
const HOP = /^(connection|date|transfer-encoding|trailer|te|keep-alive|content-|grpc-|connect-)/;

/**
 * Serves every upstream service to Connect and gRPC-web clients by forwarding each call. `innerHeaders` makes the inner
 * call's headers; nothing else a client sent goes inward. What services ask each other is not served here: UNIMPLEMENTED.
 */
export function passthrough(upstreams: Upstreams, innerHeaders: (ctx: HandlerContext) => Promise<Headers>) {
  return (router: ConnectRouter): void => {
    for (const { service, transport } of upstreams.services) {
      const methods = service.methods.filter((method) => accessRuleOf(method)?.audience !== Audience.SERVICE);
      const handlers = methods.map((method) => [method.localName, forward(method, transport, innerHeaders)]);
      router.service(service, Object.fromEntries(handlers) as never);
    }
  };
}

function forward(method: DescMethod, transport: Transport, innerHeaders: (ctx: HandlerContext) => Promise<Headers>) {
  if (method.methodKind === 'unary') {
    return async (request: never, ctx: HandlerContext) => {
      const unary = method as DescMethodUnary;
      const response = await transport.unary(unary, ctx.signal, ctx.timeoutMs(), await innerHeaders(ctx), request);
      passHeaders(response.header, ctx.responseHeader);
      return response.message;
    };
  }
  const responses = async function* (request: unknown, ctx: HandlerContext) {
    const input = method.methodKind === 'server_streaming' ? once(request) : (request as AsyncIterable<unknown>);
    const streaming = method as DescMethodStreaming;
    const header = await innerHeaders(ctx);
    const response = await transport.stream(streaming, ctx.signal, ctx.timeoutMs(), header, input as never);
    passHeaders(response.header, ctx.responseHeader);
    yield* response.message;
  };
  if (method.methodKind !== 'client_streaming') return responses;
  return async (request: unknown, ctx: HandlerContext) => {
    for await (const response of responses(request, ctx)) return response;
    throw new Error(`${method.toString()} ended without a response`);
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
