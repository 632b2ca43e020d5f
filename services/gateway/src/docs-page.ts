import { createHash } from 'node:crypto';
import type { JsonObject } from '@bufbuild/protobuf';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance } from 'fastify';
import { PAGE_POLICY } from './security-headers.ts';

/** Serves the API's description at /v1/openapi.json, and as a page at /docs that needs nothing from elsewhere. */
export async function docsPage(app: FastifyInstance, document: JsonObject): Promise<void> {
  const text = JSON.stringify(document);
  const etag = `"${createHash('sha256').update(text).digest('base64url')}"`;
  app.get('/v1/openapi.json', (request, reply) => {
    reply.headers({ etag, 'cache-control': 'no-cache' });
    if (request.headers['if-none-match'] === etag) return reply.code(304).send();
    return reply.type('application/json').send(text);
  });

  await app.register(async (page) => {
    await page.register(swagger, { mode: 'static', specification: { document: document as never } });
    await page.register(swaggerUi, {
      routePrefix: '/docs',
      staticCSP: PAGE_POLICY,
      logo: null as never,
      theme: { title: (document.info as { title: string }).title },
      // No bar for other documents' addresses, and no validator elsewhere.
      uiConfig: { layout: 'BaseLayout', docExpansion: 'list', filter: true, displayRequestDuration: true },
    });
  });
}
