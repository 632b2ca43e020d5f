import type { DescMethod } from '@bufbuild/protobuf';
import type { Interceptor } from '@connectrpc/connect';
import { SECOND_MS, type Logger, type Metrics, type Tracer } from '@mad/process';
import type { BoundService } from './bound-service.ts';
import { serveConnect } from './connect-server.ts';
import { serveGrpc } from './grpc-server.ts';
import { healthService } from './health.ts';
import { accessLog } from './interceptors/access-log.ts';
import { callMetrics } from './interceptors/metrics.ts';
import { observeInterceptor } from './interceptors/observe.ts';
import { endSpan, traceInterceptor } from './interceptors/trace.ts';
import { validateInterceptor, warmValidator } from './interceptors/validate.ts';
import { reflectionServices } from './reflection.ts';

/** What to serve, where. */
export interface ServeRpcOptions {
  /** The service's name, for its log. */
  service: string;
  host: string;
  /** gRPC. 0 takes any free port. */
  port: number;
  /** Connect and gRPC-web over HTTP/1.1. Default: port + 100, or any free port when `port` is 0. */
  connectPort?: number;
  services: readonly BoundService[];
  /** Run after tracing and logging, before validation: access control first. */
  interceptors: readonly Interceptor[];
  logger: Logger;
  /** Also shown as text at GET /metrics of the Connect port. */
  metrics?: Metrics;
  /** Where calls' spans go. */
  tracer?: Tracer;
  /** The largest request message. Default 4 MiB. */
  readMaxBytes?: number;
  /** How long close() waits for calls in flight before it ends them. Default 5 s. */
  drainMs?: number;
  /** Methods whose handlers check their messages themselves (bulk streams). */
  validatedByHand?: readonly DescMethod[];
}

/** A server listening on both ports. */
export interface RpcServer {
  readonly port: number;
  readonly connectPort: number;
  /** Refuses new calls, finishes those in flight, ends what still runs after `drainMs` with UNAVAILABLE. */
  close(): Promise<void>;
}

/** The largest message a server or client accepts unless told otherwise. */
export const DEFAULT_READ_MAX_BYTES = 4 * 1024 * 1024;
const CONNECT_PORT_OFFSET = 100;

/**
 * Serves the same handlers as gRPC on one port and as Connect/gRPC-web on another, with health and reflection. Every
 * call is traced, logged, measured and validated; errors are made fit to be seen.
 */
export async function serveRpc(options: ServeRpcOptions): Promise<RpcServer> {
  const { host, port, logger, metrics, readMaxBytes = DEFAULT_READ_MAX_BYTES, drainMs = 5 * SECOND_MS } = options;
  const health = healthService(options.services.map(({ service }) => service.typeName));
  const described = [...options.services, health.bound];
  const reflection = reflectionServices(described.map(({ service }) => service));
  const services = [...described, ...reflection];
  warmValidator(options.services);

  const observers = [accessLog(logger), ...(metrics ? [callMetrics(metrics)] : []), endSpan];
  const interceptors = [
    traceInterceptor(options.tracer),
    observeInterceptor(observers),
    ...options.interceptors,
    validateInterceptor(options.validatedByHand),
  ];
  const shared = { host, services, interceptors, readMaxBytes, logger };
  const grpc = await serveGrpc({ ...shared, port });
  const connectPort = options.connectPort ?? (port === 0 ? 0 : port + CONNECT_PORT_OFFSET);
  const connect = await serveConnect({ ...shared, port: connectPort, metrics }).catch(async (error: unknown) => {
    await grpc.close(0);
    throw error;
  });
  logger.info({ name: options.service, host, port: grpc.port, connect_port: connect.port }, 'serving');

  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    health.drain();
    await Promise.all([grpc.close(drainMs), connect.close(drainMs)]);
  };
  return { port: grpc.port, connectPort: connect.port, close: () => (closing ??= close()) };
}
