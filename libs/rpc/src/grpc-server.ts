import { createServer, type AddressInfo, type Socket } from 'node:net';
import { Code, ConnectError, type HandlerContext, type Interceptor } from '@connectrpc/connect';
import { Server, ServerCredentials, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { MINUTE_MS, SECOND_MS, type Logger } from '@mad/process';
import type { BoundService } from './bound-service.ts';
import { serviceDefinition } from './codec.ts';
import { GrpcHandlers } from './grpc-handlers.ts';
import type { Listener } from './listener.ts';

/** How to serve gRPC. */
export interface GrpcServerOptions {
  host: string;
  port: number;
  services: readonly BoundService[];
  interceptors: readonly Interceptor[];
  readMaxBytes: number;
  logger: Logger;
}

/** A connection without calls is closed after this long; clients open another when they need one. */
const IDLE_CONNECTION_MS = 30 * MINUTE_MS;
/** A peer that answers no ping for this long after `PING_EVERY_MS` is gone (or never spoke HTTP/2). */
const PING_EVERY_MS = 60 * SECOND_MS;
const PING_TIMEOUT_MS = 20 * SECOND_MS;
/** How long connections without calls may take to say goodbye when the server closes. */
const GOODBYE_MS = 200;
/** How long handlers may take to end after their signal did. */
const LAST_WORDS_MS = SECOND_MS;

/**
 * Serves Connect handlers as gRPC by grpc-js. The listening socket is ours: grpc-js waits for ever for a peer that connected
 * and never spoke HTTP/2, even when it is forced to shut down.
 */
export async function serveGrpc(options: GrpcServerOptions): Promise<Listener> {
  const server = new Server({
    'grpc.max_receive_message_length': options.readMaxBytes,
    'grpc.max_send_message_length': -1,
    'grpc.max_connection_idle_ms': IDLE_CONNECTION_MS,
    'grpc.keepalive_time_ms': PING_EVERY_MS,
    'grpc.keepalive_timeout_ms': PING_TIMEOUT_MS,
  });
  const handlers = addServices(server, options);
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const sockets = new Set<Socket>();
  const listener = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    injector.injectConnection(socket);
  });
  await new Promise<void>((resolve, reject) => {
    listener.once('error', reject);
    listener.listen(options.port, options.host, resolve);
  });

  /** Refuses new calls, waits for those in flight, ends the rest after `drainMs`, and leaves no connection. */
  const close = async (drainMs: number): Promise<void> => {
    const closed = Promise.all([
      new Promise<void>((resolve) => listener.close(() => resolve())),
      new Promise<void>((resolve) => server.tryShutdown(() => resolve())),
    ]);
    const abort = (): void => handlers.abortAll(new ConnectError('the server is shutting down', Code.Unavailable));
    const cut = (): void => sockets.forEach((socket) => socket.destroy());
    const timers = [setTimeout(abort, drainMs), setTimeout(cut, drainMs + LAST_WORDS_MS)];
    let idleSince = Date.now();
    const poll = setInterval(() => {
      if (handlers.active.size > 0) idleSince = Date.now();
      else if (Date.now() - idleSince >= GOODBYE_MS) cut();
    }, 20);
    await closed;
    timers.forEach(clearTimeout);
    clearInterval(poll);
  };
  return { port: (listener.address() as AddressInfo).port, close };
}

/** Registers every method that has a handler. */
function addServices(server: Server, { services, interceptors, logger }: GrpcServerOptions): GrpcHandlers {
  const handlers = new GrpcHandlers(interceptors);
  for (const { service, impl } of services) {
    const implementation: UntypedServiceImplementation = {};
    for (const method of service.methods) {
      const fn = impl[method.localName] as ((request: unknown, context: HandlerContext) => unknown) | undefined;
      if (fn) implementation[method.localName] = handlers.handler(method, fn.bind(impl));
    }
    const definition = serviceDefinition(service, (method, error) =>
      logger.info({ method: `${service.typeName}/${method.name}`, code: 'internal', error }, 'rpc unreadable'),
    );
    server.addService(definition, implementation);
  }
  return handlers;
}
