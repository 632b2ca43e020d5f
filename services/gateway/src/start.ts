import type { AddressInfo } from 'node:net';
import { createRegistry } from '@bufbuild/protobuf';
import { createContextKey, createContextValues, type HandlerContext } from '@connectrpc/connect';
import { fastifyConnectPlugin } from '@connectrpc/connect-fastify';
import { createServiceTokenSigner } from '@mad/auth';
import { redisProbe } from '@mad/cache';
import { createMetrics, type ServiceDeps } from '@mad/process';
import { readDescriptorSet } from '@mad/proto/descriptors';
import * as details from '@mad/proto/rpc';
import { admission, type EdgeRequest } from './admission.ts';
import type { GatewayConfig } from './config.ts';
import { docsPage } from './docs-page.ts';
import { edgeServer } from './edge-server.ts';
import { openApiDocument } from './openapi/document.ts';
import { passthrough } from './passthrough.ts';
import { probes } from './probes.ts';
import { openRateLimits } from './rate-limits.ts';
import { readinessProbe } from './readiness.ts';
import { restRoutes } from './rest/rest-routes.ts';
import { shutdownIn } from './shutdown.ts';
import { openUpstreams } from './upstreams.ts';

/** A running gateway. */
export interface Gateway {
  port: number;
  /** Ends in phases, see shutdown.ts. */
  close(): Promise<void>;
}

/** What the gateway shares with the process around it. */
export interface GatewayDependencies extends ServiceDeps {
  /** Text of all metrics of the process; by default the gateway's own. */
  metricsText?: () => Promise<string>;
}

/** Where a Connect handler finds what the edge knows of its request. */
const edgeRequest = createContextKey<EdgeRequest>(
  { authorization: undefined, traceparent: '', requestId: '', address: '' },
  { description: 'mad edge request' },
);

/** Starts the gateway: REST, Connect and gRPC-web in, gRPC inward. */
export async function startGateway(config: GatewayConfig, dependencies: GatewayDependencies): Promise<Gateway> {
  const { logger, tracer } = dependencies;
  const metrics = dependencies.metrics ?? createMetrics('gateway');
  const upstreams = openUpstreams(config.addresses, logger);
  const services = upstreams.services.map(({ service }) => service);
  const serviceToken = createServiceTokenSigner({ service: 'gateway', privateJwk: config.servicePrivateJwk });
  const redis = config.redisUrl === undefined ? undefined : redisProbe(config.redisUrl, { logger });
  const registry = createRegistry(details.file_google_rpc_error_details, ...services);
  const refusals = { registry, logger, bodyLimitBytes: config.bodyLimitBytes };
  const shutdown = shutdownIn(config);
  const limits = openRateLimits(config.rates, { redisUrl: config.redisUrl, logger });
  const admit = admission({ identity: upstreams.identity, limits });

  const server = await edgeServer(config, { metrics, tracer, refusals });
  const { app } = server;
  probes(app, {
    readiness: readinessProbe(upstreams.provisioner, serviceToken, redis),
    draining: () => shutdown.draining(),
    metricsText: dependencies.metricsText ?? (() => metrics.text()),
    metricsType: metrics.contentType,
  });
  await docsPage(app, openApiDocument(services, readDescriptorSet()));
  await app.register(async (rest) => {
    restRoutes(rest, {
      ...refusals,
      upstreams,
      admit: (request, { method }) => admit(server.requestOf(request), method),
      timeoutMs: config.timeoutMs,
      heartbeatMs: config.heartbeatMs,
      streamsEnd: shutdown.streamsEnd,
      callsEnd: shutdown.callsEnd,
    });
  });
  await app.register(fastifyConnectPlugin, {
    routes: passthrough({
      upstreams,
      admit: (ctx: HandlerContext) => admit(ctx.values.get(edgeRequest), ctx.method),
      streamsEnd: shutdown.streamsEnd,
    }),
    contextValues: (request) => createContextValues().set(edgeRequest, server.requestOf(request)),
    readMaxBytes: config.bodyLimitBytes,
    shutdownSignal: shutdown.callsEnd,
  });

  await app.listen({ host: config.host, port: config.port });
  const { port } = app.server.address() as AddressInfo;
  logger.info({ host: config.host, port }, 'gateway listens');
  return {
    port,
    close: async () => {
      await shutdown.close(server);
      await limits.close();
      upstreams.close();
      redis?.close();
    },
  };
}
