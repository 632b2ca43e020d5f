import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Code, ConnectError, createConnectRouter, createContextValues, type Interceptor } from '@connectrpc/connect';
import {
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from '@connectrpc/connect-node';
import { SECOND_MS, type Logger, type Metrics } from '@mad/process';
import type { BoundService } from './bound-service.ts';
import { reachedHandlerKey } from './interceptors/observe.ts';
import type { Listener } from './listener.ts';

/** How to serve Connect and gRPC-web. */
export interface ConnectServerOptions {
  host: string;
  port: number;
  services: readonly BoundService[];
  interceptors: readonly Interceptor[];
  readMaxBytes: number;
  logger: Logger;
  /** Shown at GET /metrics, in the text format of Prometheus. */
  metrics?: Metrics;
}

/** A client must have sent its request's headers, and its whole request, within these. */
const HEADERS_TIMEOUT_MS = 10 * SECOND_MS;
const REQUEST_TIMEOUT_MS = 300 * SECOND_MS;
const KEEP_ALIVE_MS = 65 * SECOND_MS;
/** How often Node looks for connections over these times. */
const CHECK_EVERY_MS = 2 * SECOND_MS;

/** Serves Connect handlers as Connect (JSON, binary) and gRPC-web over HTTP/1.1. */
export async function serveConnect(options: ConnectServerOptions): Promise<Listener> {
  const shutdown = new AbortController();
  const answering = new Set<ServerResponse>();
  const answer = requestListener(options, shutdown.signal);
  const server = createServer(
    {
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: CHECK_EVERY_MS,
    },
    (request, response) => {
      answering.add(response);
      response.once('close', () => answering.delete(response));
      answer(request, response);
    },
  );
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, resolve);
  });
  const close = async (drainMs: number): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    const drain = setTimeout(
      () => shutdown.abort(new ConnectError('the server is shutting down', Code.Unavailable)),
      drainMs,
    );
    const force = setTimeout(() => server.closeAllConnections(), drainMs + SECOND_MS);
    // A connection that has sent half a request counts as busy for Node; without a call of ours it is cut.
    const poll = setInterval(() => {
      if (answering.size === 0) server.closeAllConnections();
    }, 20);
    await closed;
    clearTimeout(drain);
    clearTimeout(force);
    clearInterval(poll);
  };
  return { port: (server.address() as AddressInfo).port, close };
}

/** Where Prometheus looks for a service's metrics. */
const METRICS_PATH = '/metrics';

async function sendMetrics(metrics: Metrics, response: ServerResponse, logger: Logger): Promise<void> {
  try {
    const text = await metrics.text();
    response.writeHead(200, { 'content-type': metrics.contentType }).end(text);
  } catch (error) {
    logger.warn({ error }, 'metrics cannot be read');
    response.writeHead(500).end();
  }
}

/** Node's request listener over Connect's handlers. Requests cut before any interceptor are logged here. */
function requestListener(
  { services, interceptors, readMaxBytes, logger, metrics }: ConnectServerOptions,
  shutdownSignal: AbortSignal,
): (request: IncomingMessage, response: ServerResponse) => void {
  const router = createConnectRouter({
    grpc: false, // needs HTTP/2: it has the other port
    interceptors: [...interceptors],
    readMaxBytes,
    shutdownSignal,
    acceptCompression: [compressionGzip],
  });
  for (const { service, impl } of services) router.service(service, impl);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));

  return (request, response) => {
    const path = request.url?.split('?', 1)[0] ?? '';
    const cut = (reason: string, error?: unknown): void => {
      logger.info({ method: path.slice(1, 200), http_status: response.statusCode, error }, reason);
    };
    const handler = handlers.get(path);
    if (metrics && path === METRICS_PATH && request.method === 'GET') {
      void sendMetrics(metrics, response, logger);
      return;
    }
    if (!handler) {
      response.writeHead(404).end();
      cut('rpc unknown');
      return;
    }
    const values = createContextValues();
    response.once('close', () => {
      if (!values.get(reachedHandlerKey)) cut('rpc unreadable');
    });
    let universal;
    try {
      universal = universalRequestFromNodeRequest(request, response, undefined, values);
    } catch {
      // No usable Host header, or a URL that is none.
      response.writeHead(400).end();
      return;
    }
    handler(universal)
      .then((answer) => {
        // Node never reads on after a request whose rest was dropped: the next one on this connection would hang.
        if (!request.complete) response.setHeader('connection', 'close');
        return universalResponseToNodeResponse(answer, response);
      })
      .catch((error: unknown) => {
        // The client went away while the answer was being written; the access log has the call.
        logger.debug({ method: path.slice(1, 200), error }, 'rpc answer not delivered');
        response.destroy();
      });
  };
}
