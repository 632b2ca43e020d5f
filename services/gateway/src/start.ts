import { randomUUID } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { createRegistry } from '@bufbuild/protobuf';
import { Code, ConnectError, createContextKey, createContextValues, type HandlerContext } from '@connectrpc/connect';
import { fastifyConnectPlugin } from '@connectrpc/connect-fastify';
import { createServiceTokenSigner } from '@mad/auth';
import { redisProbe } from '@mad/cache';
import type { Logger, Metrics } from '@mad/process';
import { createMetrics } from '@mad/process';
import * as details from '@mad/proto/rpc';
import { continueTrace, traceparentOf } from '@mad/rpc';
import Fastify, { type FastifyRequest } from 'fastify';
import type { GatewayConfig } from './config.ts';
import { credentials } from './credentials.ts';
import { passthrough } from './passthrough.ts';
import { readinessProbe } from './readiness.ts';
import { EdgeRefusal } from './rest/problem.ts';
import { restRoutes, sendProblem } from './rest/rest-routes.ts';
import { openUpstreams } from './upstreams.ts';

/** A running gateway. */
export interface Gateway {
  port: number;
  close(): Promise<void>;
}

/** What the gateway shares with the process around it. */
export interface GatewayDependencies {
  logger: Logger;
  metrics?: Metrics;
  /** Text of all metrics of the process; by default the gateway's own. */
  metricsText?: () => Promise<string>;
}

/** Where a Connect handler finds what the edge knows of its request. */
const edgeRequest = createContextKey({ traceparent: '', requestId: '' }, { description: 'mad edge request' });
const REQUEST_ID = /^[A-Za-z0-9._-]{1,128}$/;

/** Starts the gateway: REST, Connect and gRPC-web in, gRPC inward. */
export async function startGateway(config: GatewayConfig, dependencies: GatewayDependencies): Promise<Gateway> {
  const { logger } = dependencies;
  const metrics = dependencies.metrics ?? createMetrics('gateway');
  const metricsText = dependencies.metricsText ?? (() => metrics.text());
  const upstreams = openUpstreams(config.addresses, logger);
  const authorize = credentials(upstreams.identity);
  const serviceToken = createServiceTokenSigner({ service: 'gateway', privateJwk: config.servicePrivateJwk });
  const redis = config.redisUrl === undefined ? undefined : redisProbe(config.redisUrl, { logger });
  const readiness = readinessProbe(upstreams.provisioner, serviceToken, redis);
  const registry = createRegistry(details.file_google_rpc_error_details, ...upstreams.services.map((s) => s.service));

  /** Only what services may trust goes inward: credentials, the trace and the request's id. */
  const innerHeaders = async (authorization: string | null | undefined, traceparent: string, requestId: string) => {
    const headers = new Headers({ traceparent, 'x-request-id': requestId });
    const credential = await authorize(authorization ?? undefined);
    if (credential) headers.set('authorization', credential);
    return headers;
  };

  const refusals = { registry, logger };
  const app = Fastify({
    logger: false,
    bodyLimit: config.bodyLimitBytes,
    requestIdHeader: false,
    genReqId: (request) => {
      const given = request.headers['x-request-id'];
      return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID();
    },
    // Slow or silent clients are cut, so that they cannot hold sockets for ever.
    connectionTimeout: 0,
    requestTimeout: config.timeoutMs,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 2000 },
    frameworkErrors: (error, request, reply) => void sendProblem(error, request, reply, refusals),
  });
  const traces = new WeakMap<object, string>();
  const duration = metrics.histogram({
    name: 'http_request_duration_seconds',
    help: 'Time to answer an HTTP request.',
    labelNames: ['method', 'status'],
  });

  app.addHook('onRequest', (request, reply, done) => {
    traces.set(request.raw, traceparentOf(continueTrace(request.headers.traceparent as string | undefined)));
    void reply.headers({
      'x-request-id': request.id,
      'x-trace-id': traces.get(request.raw)!.split('-')[1],
      'x-content-type-options': 'nosniff',
      'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
      'referrer-policy': 'no-referrer',
      'cache-control': 'no-store',
    });
    done();
  });
  app.addHook('onResponse', (request, reply, done) => {
    duration.observe({ method: request.method, status: String(reply.statusCode) }, reply.elapsedTime / 1000);
    logger.info({
      method: request.method,
      path: request.url.split('?')[0],
      status: reply.statusCode,
      ms: Math.round(reply.elapsedTime * 10) / 10,
      request_id: request.id,
      trace_id: traces.get(request.raw)?.split('-')[1],
    });
    done();
  });

  app.get('/live', () => ({ status: 'live' }));
  app.get('/ready', async (_request, reply) => {
    const state = await readiness();
    return reply.code(state.status === 'ready' ? 200 : 503).send(state);
  });
  app.get('/metrics', async (_request, reply) => reply.type(metrics.contentType).send(await metricsText()));
  app.get('/.well-known/jwks.json', async (request, reply) =>
    reply.redirect('/v1/sessions:keys', 307).header('x-request-id', request.id),
  );
  app.setNotFoundHandler((request, reply) =>
    sendProblem(new EdgeRefusal(`no such resource: ${request.url}`, Code.NotFound, 404), request, reply, refusals),
  );
  app.setErrorHandler((error, request, reply) => sendProblem(error, request, reply, refusals));

  await app.register(async (rest) => {
    restRoutes(rest, {
      upstreams,
      ...refusals,
      timeoutMs: config.timeoutMs,
      innerHeaders: (request: FastifyRequest) =>
        innerHeaders(request.headers.authorization, traces.get(request.raw)!, request.id),
    });
  });
  const closing = new AbortController();
  await app.register(fastifyConnectPlugin, {
    routes: passthrough(upstreams, (ctx: HandlerContext) => {
      const { traceparent, requestId } = ctx.values.get(edgeRequest);
      return innerHeaders(ctx.requestHeader.get('authorization'), traceparent, requestId);
    }),
    contextValues: (request) =>
      createContextValues().set(edgeRequest, { traceparent: traces.get(request.raw)!, requestId: request.id }),
    readMaxBytes: config.bodyLimitBytes,
    shutdownSignal: closing.signal,
  });

  await app.listen({ host: config.host, port: config.port });
  const { port } = app.server.address() as AddressInfo;
  logger.info({ host: config.host, port }, 'gateway listens');
  return {
    port,
    close: async () => {
      closing.abort(new ConnectError('the gateway is shutting down', Code.Unavailable));
      await app.close();
      upstreams.close();
      redis?.close();
    },
  };
}
