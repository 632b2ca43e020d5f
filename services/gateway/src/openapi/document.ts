import { readFileSync } from 'node:fs';
import type { DescService, JsonObject } from '@bufbuild/protobuf';
import type { FileDescriptorSet } from '@bufbuild/protobuf/wkt';
import { bindingsOf } from '../rest/binding.ts';
import { commentsOf } from './comments.ts';
import { openApiPath, operationOf } from './operation.ts';
import { PROBLEM_RESPONSES, PROBLEM_SCHEMA } from './problem-schema.ts';
import { collectSchemas, messagesIn } from './schemas.ts';

const DESCRIPTION = `Molecules, pipelines, jobs and their results, of one organization at a time.

Every call but the public ones takes \`Authorization: Bearer …\`: an access token of a login, or an API token (\`mad_…\`).
The organization in a path must be the token's; another one does not exist for it (404).

Fields are named in JSON as here (\`orgId\`) and in queries as in the contracts (\`page_size\`); either form is taken in
both places. Numbers of 64 bits are strings. Lists go on with \`page_token\`. Changes take a \`requestId\` of your own: the
same id again returns the first answer. Errors are RFC 9457 problems with a \`reason\` that programs can branch on.

The same services answer Connect and gRPC-web here, \`POST /<package>.<Service>/<Method>\`, streams in both directions
included.`;

/** The version of this package, which is the product's. */
function productVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

/**
 * The OpenAPI 3.1 document of every annotated RPC of the services: made from the descriptors that route, validate and
 * authorize, so it cannot disagree with what is served. `set` gives the comments.
 */
export function openApiDocument(services: readonly DescService[], set: FileDescriptorSet): JsonObject {
  const comments = commentsOf(set);
  const routed = services
    .map((service) => ({ service, bindings: bindingsOf(service) }))
    .filter(({ bindings }) => bindings.length > 0);
  const bindings = routed.flatMap((one) => one.bindings);
  const schemas = collectSchemas(comments, messagesIn(bindings.map(({ method }) => method.input)));
  const paths: Record<string, JsonObject> = {};
  const seen = new Map<string, number>();
  for (const binding of bindings) {
    const name = binding.method.toString();
    const nth = seen.get(name) ?? 0;
    seen.set(name, nth + 1);
    const operations = (paths[openApiPath(binding)] ??= {});
    operations[binding.httpMethod.toLowerCase()] = operationOf(binding, nth, comments, schemas);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'MAD, the Molecular Analysis Dashboard',
      version: productVersion(),
      description: DESCRIPTION,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    security: [{ bearer: [] }],
    tags: routed.map(({ service }) => ({
      name: service.name,
      description: comments.get(service.typeName) ?? service.typeName,
    })),
    paths,
    components: {
      securitySchemes: {
        bearer: {
          type: 'http',
          scheme: 'bearer',
          description: 'An access token of a login, or an API token (`mad_…`).',
        },
      },
      responses: PROBLEM_RESPONSES,
      schemas: { ...schemas.all(), Problem: PROBLEM_SCHEMA },
    },
  };
}
