import { create, type DescMethod } from '@bufbuild/protobuf';
import {
  Code,
  ConnectError,
  createContextValues,
  type ContextValues,
  type Interceptor,
  type StreamRequest,
  type StreamResponse,
  type Transport,
  type UnaryRequest,
  type UnaryResponse,
} from '@connectrpc/connect';
import { credentials } from '@grpc/grpc-js';
import { HOUR_MS, runSpan, SECOND_MS } from '@mad/process';
import { clientSpan, messagesUntilEnd, withTrace } from './client-span.ts';
import { pathOf } from './codec.ts';
import { Connection } from './connection.ts';
import { callStream, callUnary, type CallSettings } from './grpc-calls.ts';
import { DEFAULT_READ_MAX_BYTES } from './serve.ts';

/** How to call a service. */
export interface GrpcTransportOptions {
  interceptors?: Interceptor[];
  /** For unary calls that give no timeout. Default 30 s. */
  defaultTimeoutMs?: number;
  /** For streams that give no timeout. Default 1 h: a stream that nobody reads must end. */
  defaultStreamTimeoutMs?: number;
  /** Largest message accepted from the server. Default 4 MiB. */
  readMaxBytes?: number;
  /**
   * While calls run, an answer to a ping is asked for every `everyMs`, and a connection that does not give one within
   * `timeoutMs` is given up. Default 60 s and 20 s.
   */
  keepalive?: { everyMs: number; timeoutMs: number };
  /** Response messages read ahead of the consumer. Default 16. */
  readAhead?: number;
  /** Calls wait at most this long for a connection, then end with UNAVAILABLE. Default 3 s. */
  connectTimeoutMs?: number;
}

/** A Connect transport over one connection, reopened as needed. Make one per address and share it. */
export interface GrpcTransport extends Transport {
  close(): void;
}

type AnyRequest = UnaryRequest | StreamRequest;
type AnyResponse = UnaryResponse | StreamResponse;

/** A service that restarts is back within half a second, not after grpc-js's default of up to two minutes. */
const MIN_BACKOFF_MS = 50;
const MAX_BACKOFF_MS = 500;
/** It may be back at another address, as a container is: grpc-js would ask the name again after half a minute. */
const MIN_RESOLUTION_MS = SECOND_MS;
/** A host that is gone answers nothing: what a local network needs to connect is a thousandth of this. */
const CONNECT_TIMEOUT_MS = 3 * SECOND_MS;
/** HTTP/2's default window of 64 KiB halves the rate of large downloads. */
const FLOW_CONTROL_WINDOW_BYTES = 4 * 1024 * 1024;

/** Stands in for a signal that nobody gave: interceptors expect one. */
const neverAborts = new AbortController().signal;

/**
 * Calls `address` ("host:port") over gRPC, in clear text. A timeout of a call counts from its start; 0 or less means none.
 * Connect's clients do not tell a transport that a response loop was left: end streams by an AbortSignal.
 */
export function grpcTransport(address: string, options: GrpcTransportOptions = {}): GrpcTransport {
  const { defaultTimeoutMs = 30 * SECOND_MS, defaultStreamTimeoutMs = HOUR_MS, readAhead = 16 } = options;
  const connectTimeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
  const channel = {
    'grpc.max_receive_message_length': options.readMaxBytes ?? DEFAULT_READ_MAX_BYTES,
    'grpc.max_send_message_length': -1,
    'grpc.initial_reconnect_backoff_ms': MIN_BACKOFF_MS,
    'grpc.max_reconnect_backoff_ms': MAX_BACKOFF_MS,
    'grpc.dns_min_time_between_resolutions_ms': MIN_RESOLUTION_MS,
    // How to call is decided here, not by TXT records beside the address.
    'grpc.service_config_disable_resolution': 1,
    'grpc.keepalive_time_ms': options.keepalive?.everyMs ?? 60 * SECOND_MS,
    'grpc.keepalive_timeout_ms': options.keepalive?.timeoutMs ?? 20 * SECOND_MS,
    'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW_BYTES,
    // Otherwise all transports of a process share connections, and the backoff of one is the backoff of all.
    'grpc.use_local_subchannel_pool': 1,
  };
  const connection = new Connection(address, { credentials: credentials.createInsecure(), channel, connectTimeoutMs });
  const interceptors = options.interceptors?.toReversed() ?? [];

  const settingsOf = (
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    fallbackMs: number,
    header: Headers | undefined,
  ): CallSettings => ({
    signal: signal === neverAborts ? undefined : signal,
    timeoutMs: timeoutMs === undefined ? fallbackMs : timeoutMs <= 0 ? undefined : timeoutMs,
    header,
  });

  /** Runs `send` inside the interceptors, with the request object they expect. */
  const intercepted = async <R extends AnyResponse>(
    request: { method: DescMethod; stream: boolean; message: unknown },
    signal: AbortSignal | undefined,
    header: ConstructorParameters<typeof Headers>[0],
    values: ContextValues | undefined,
    send: (request: AnyRequest) => Promise<R>,
  ): Promise<R> => {
    let next = send as (request: AnyRequest) => Promise<AnyResponse>;
    for (const interceptor of interceptors) next = interceptor(next);
    const { method } = request;
    return (await next({
      ...request,
      service: method.parent,
      requestMethod: 'POST',
      url: `http://${address}${pathOf(method)}`,
      signal: signal ?? neverAborts,
      header: new Headers(header),
      contextValues: values ?? createContextValues(),
    } as AnyRequest)) as R;
  };

  const notStarted = (signal: AbortSignal | undefined): void => {
    if (signal?.aborted) throw ConnectError.from(signal.reason, Code.Canceled);
  };

  return {
    close: () => connection.close(),

    async unary(method, signal, timeoutMs, given, input, values) {
      notStarted(signal);
      const span = clientSpan(method);
      const header = withTrace(given, span);
      const message = create(method.input, input);
      const send = (by: AbortSignal | undefined, headers: Headers | undefined, body: typeof message) =>
        callUnary(connection.line, method, settingsOf(by, timeoutMs, defaultTimeoutMs, headers), body);
      const call = () =>
        interceptors.length === 0
          ? send(signal, header === undefined ? undefined : new Headers(header), message)
          : intercepted({ method, stream: false, message }, signal, header, values, (request) =>
              send(request.signal, request.header, request.message as typeof message),
            );
      return span === undefined ? call() : runSpan(span, call);
    },

    async stream(method, signal, timeoutMs, given, input, values) {
      notStarted(signal);
      const span = clientSpan(method);
      const header = withTrace(given, span);
      const send = (by: AbortSignal | undefined, headers: Headers | undefined, messages: typeof input) =>
        callStream(
          connection.line,
          method,
          settingsOf(by, timeoutMs, defaultStreamTimeoutMs, headers),
          messages,
          readAhead,
        );
      const call = () =>
        interceptors.length === 0
          ? send(signal, header === undefined ? undefined : new Headers(header), input)
          : intercepted({ method, stream: true, message: input }, signal, header, values, (request) =>
              send(request.signal, request.header, request.message as typeof input),
            );
      if (span === undefined) return call();
      try {
        const response = await call();
        return { ...response, message: messagesUntilEnd(span, response.message) };
      } catch (error) {
        span.end(error);
        throw error;
      }
    },
  };
}
