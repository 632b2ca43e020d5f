import type { FastifyInstance } from 'fastify';
import type { Readiness } from './readiness.ts';

/** What the probes tell. */
export interface ProbeOptions {
  readiness: () => Promise<Readiness>;
  /** True while the gateway is ending. */
  draining: () => boolean;
  metricsText: () => Promise<string>;
  metricsType: string;
}

/** What operators, load balancers and verifiers of tokens ask: /live, /ready, /metrics and the published keys. */
export function probes(app: FastifyInstance, { readiness, draining, metricsText, metricsType }: ProbeOptions): void {
  app.get('/live', () => ({ status: 'live' }));
  app.get('/ready', async (_request, reply) => {
    const state = await readiness();
    if (draining()) return reply.code(503).send({ ...state, status: 'not_ready', draining: true });
    return reply.code(state.status === 'ready' ? 200 : 503).send(state);
  });
  app.get('/metrics', async (_request, reply) => reply.type(metricsType).send(await metricsText()));
  app.get('/.well-known/jwks.json', async (request, reply) =>
    reply.redirect('/v1/sessions:keys', 307).header('x-request-id', request.id),
  );
}
