import { toJson, type Message, type Registry } from '@bufbuild/protobuf';
import type { Transport } from '@connectrpc/connect';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Upstreams } from '../upstreams.ts';
import type { Binding } from './binding.ts';
import type { Refusals } from './send-problem.ts';

/** What the REST routes need of the gateway. */
export interface RestOptions extends Refusals {
  upstreams: Upstreams;
  /** Lets a request in and gives the headers of its inner call. */
  admit: (request: FastifyRequest, binding: Binding) => Promise<Headers>;
  /** Milliseconds a request may take, streams aside. */
  timeoutMs: number;
  heartbeatMs: number;
  /** Aborted when the gateway ends: first streams, which clients resume, later whatever is left. */
  streamsEnd: AbortSignal;
  callsEnd: AbortSignal;
}

/** A route, and how its service is reached. */
export type Route = Binding & { transport: Transport };

/** One call of a service for one HTTP request. */
export interface Call {
  route: Route;
  message: Message;
  header: Headers;
  /** Aborted when the client goes away or the gateway's time is up. */
  gone: AbortController;
  request: FastifyRequest;
  reply: FastifyReply;
  options: RestOptions;
}

/** A message as JSON text: every field that can be absent only by being zero is there. */
export function jsonText({ method }: Binding, message: Message, registry: Registry): string {
  return JSON.stringify(toJson(method.output, message as never, { registry, alwaysEmitImplicit: true }));
}
