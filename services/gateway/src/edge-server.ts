import { randomUUID } from 'node:crypto';
import { constants } from 'node:zlib';
import type { Socket } from 'node:net';
import compress from '@fastify/compress';
import cors from '@fastify/cors';
import { Code, cors as connectCors } from '@connectrpc/connect';
import { beginSpan, inSpan, SECOND_MS, traceparentOf, type Metrics, type Span, type Tracer } from '@mad/process';
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify';
import type { EdgeRequest } from './admission.ts';
import type { GatewayConfig } from './config.ts';
import { EdgeRefusal, problemOf } from './rest/problem.ts';
import { sendProblem, type Refusals } from './rest/send-problem.ts';
import { SECURITY_HEADERS } from './security-headers.ts';

/** The HTTP server before any route: limits, request ids, traces, headers, compression, CORS, access log. */
export interface EdgeServer {
  app: FastifyInstance;
  /** What the edge knows of a request. */
  requestOf(request: FastifyRequest): EdgeRequest;
  /** How many requests are being answered. */
  answering(): number;
}

const REQUEST_ID = /^[A-Za-z0-9._-]{1,128}$/;
/** The longest path and query, bytes: page tokens have at most 2,000 characters, filters far less. */
export const URL_LIMIT_BYTES = 8 * 1024;
/** Smaller answers cost more to compress than to send. */
const COMPRESS_FROM_BYTES = 1024;
/** A client must have sent its headers, and its whole request (a stream of molecules may be long), within these. */
const HEADERS_TIMEOUT_MS = 10 * SECOND_MS;
const REQUEST_TIMEOUT_MS = 300 * SECOND_MS;
/** How often Node looks for connections over these times. */
const CHECK_EVERY_MS = 2 * SECOND_MS;
/** A preflight's answer holds for so many seconds. */
const PREFLIGHT_S = 7200;
const COMPRESSIBLE = /^(text\/(?!event-stream)|application\/((.+\+)?json|x-ndjson|javascript|openmetrics-text))/;

/** Asked every few seconds by machines: no traces of theirs are kept. */
const PROBES = new Set(['/live', '/ready', '/metrics']);

/** What the server reports to. */
export interface EdgeReports {
  metrics: Metrics;
  tracer?: Tracer;
  refusals: Refusals;
}

/** Makes the server. Nothing listens yet. */
export async function edgeServer(
  config: GatewayConfig,
  { metrics, tracer, refusals }: EdgeReports,
): Promise<EdgeServer> {
  const { logger } = refusals;
  const app = Fastify({
    logger: false,
    bodyLimit: config.bodyLimitBytes,
    http: {
      maxHeaderSize: config.headerLimitBytes,
      headersTimeout: HEADERS_TIMEOUT_MS,
      connectionsCheckingInterval: CHECK_EVERY_MS,
    },
    requestIdHeader: false,
    genReqId: (request) => {
      const given = request.headers['x-request-id'];
      return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID();
    },
    trustProxy: config.trustProxy.length > 0 ? [...config.trustProxy] : false,
    // Slow or silent clients are cut, so that they cannot hold sockets for ever.
    connectionTimeout: 0,
    requestTimeout: REQUEST_TIMEOUT_MS,
    forceCloseConnections: 'idle',
    // The end is ours to arrange: what reaches the gateway while it closes is still answered.
    return503OnClosing: false,
    routerOptions: { maxParamLength: URL_LIMIT_BYTES },
    frameworkErrors: (error, request, reply) => void sendProblem(error, request, reply, refusals),
    clientErrorHandler: (error, socket) => refuseUnreadable(error, socket, config, refusals),
  });
  const spans = new WeakMap<object, Span>();
  const answering = new Set<object>();
  const duration = metrics.histogram({
    name: 'http_request_duration_seconds',
    help: 'Time to answer an HTTP request.',
    labelNames: ['method', 'status'],
  });

  app.addHook('onRequest', (request, reply, done) => {
    const path = request.url.split('?')[0]!;
    const given = request.headers.traceparent as string | undefined;
    const attributes = { path, request_id: request.id };
    const span = beginSpan(PROBES.has(path) ? undefined : tracer, given, `HTTP ${request.method}`, 'server', {
      attributes,
    });
    spans.set(request.raw, span);
    answering.add(reply.raw);
    reply.raw.once('close', () => answering.delete(reply.raw));
    void reply.headers({
      ...SECURITY_HEADERS,
      'x-request-id': request.id,
      'x-trace-id': span.traceId,
    });
    if (Buffer.byteLength(request.url) <= URL_LIMIT_BYTES) return inSpan(span, done);
    done(
      new EdgeRefusal(`the path and query are over the limit of ${URL_LIMIT_BYTES} bytes`, Code.InvalidArgument, 414),
    );
  });
  app.addHook('onResponse', (request, reply, done) => {
    const span = spans.get(request.raw);
    duration.observe({ method: request.method, status: String(reply.statusCode) }, reply.elapsedTime / 1000);
    logger.info({
      method: request.method,
      path: request.url.split('?')[0],
      status: reply.statusCode,
      ms: Math.round(reply.elapsedTime * 10) / 10,
      request_id: request.id,
      trace_id: span?.traceId,
    });
    span?.set({ status: reply.statusCode });
    span?.end(reply.statusCode >= 500 ? `HTTP ${reply.statusCode}` : undefined);
    done();
  });
  app.setNotFoundHandler((request, reply) =>
    sendProblem(
      new EdgeRefusal(`no such resource: ${request.url.split('?')[0]}`, Code.NotFound, 404),
      request,
      reply,
      refusals,
    ),
  );
  app.setErrorHandler((error, request, reply) => sendProblem(error, request, reply, refusals));
  await openToOrigins(app, config.corsOrigins);
  await app.register(compress, {
    encodings: ['br', 'gzip'],
    threshold: COMPRESS_FROM_BYTES,
    customTypes: COMPRESSIBLE,
    // Each message of a stream leaves at once, not when a block is full.
    zlibOptions: { flush: constants.Z_SYNC_FLUSH },
    brotliOptions: {
      flush: constants.BROTLI_OPERATION_FLUSH,
      params: { [constants.BROTLI_PARAM_QUALITY]: 4 },
    },
    // Bodies come as they are: a limit in bytes would otherwise say nothing.
    globalDecompression: false,
  });

  return {
    app,
    requestOf: (request) => ({
      authorization: request.headers.authorization,
      traceparent: traceparentOf(spans.get(request.raw)!),
      requestId: request.id,
      address: request.ip,
    }),
    answering: () => answering.size,
  };
}

/** Lets pages of the given origins call the gateway; with none no browser lets another origin's page read an answer. */
async function openToOrigins(app: FastifyInstance, origins: readonly string[]): Promise<void> {
  if (origins.length === 0) return;
  await app.register(cors, {
    origin: [...origins],
    methods: ['GET', 'HEAD', 'POST', 'PATCH', 'PUT', 'DELETE'],
    allowedHeaders: [...connectCors.allowedHeaders, 'Authorization', 'Last-Event-ID', 'Traceparent', 'X-Request-Id'],
    exposedHeaders: [...connectCors.exposedHeaders, 'ETag', 'Retry-After', 'X-Request-Id', 'X-Trace-Id'],
    maxAge: PREFLIGHT_S,
  });
}

/** What Node could not read as a request never reaches Fastify: it is answered on the bare socket. */
function refuseUnreadable(error: Error, socket: Socket, { headerLimitBytes }: GatewayConfig, refusals: Refusals): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const refusal = unreadable((error as NodeJS.ErrnoException).code ?? '', headerLimitBytes);
  const body = JSON.stringify(problemOf(refusal, '', refusals.registry));
  const head = [
    `HTTP/1.1 ${refusal.status} ${refusal.reasonPhrase}`,
    'content-type: application/problem+json',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
  refusals.logger.info({ status: refusal.status }, 'request unreadable');
}

function unreadable(code: string, headerLimitBytes: number): EdgeRefusal & { reasonPhrase: string } {
  const refuse = (message: string, status: number, reasonPhrase: string, grpc = Code.InvalidArgument) =>
    Object.assign(new EdgeRefusal(message, grpc, status), { reasonPhrase });
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return refuse(
        `the request line and headers are over the limit of ${headerLimitBytes} bytes`,
        431,
        'Request Header Fields Too Large',
      );
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return refuse('the request did not arrive in time', 408, 'Request Timeout', Code.DeadlineExceeded);
    default:
      return refuse('this is no HTTP request', 400, 'Bad Request');
  }
}
