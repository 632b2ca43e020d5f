import type { DescField, JsonObject, JsonValue } from '@bufbuild/protobuf';
import { MethodOptions_IdempotencyLevel as IdempotencyLevel } from '@bufbuild/protobuf/wkt';
import { accessRuleOf, SELF } from '@mad/auth';
import { Audience } from '@mad/proto/access';
import { fieldsOf, type Binding } from '../rest/binding.ts';
import type { Comments } from './comments.ts';
import { mustBeGiven } from './constraints.ts';
import { problemResponses } from './problem-schema.ts';
import type { Schemas } from './schemas.ts';

/** The path as OpenAPI writes it: patterns inside braces are dropped, `{path=**}` becomes `{path}`. */
export function openApiPath(binding: Binding): string {
  return binding.path.replace(/\{([^}=]+)=[^}]*\}/g, '{$1}');
}

/** One operation of the document. `nth` tells the further bindings of one RPC apart. */
export function operationOf(binding: Binding, nth: number, comments: Comments, schemas: Schemas): JsonObject {
  const { method } = binding;
  const service = method.parent;
  const comment = comments.get(`${service.typeName}.${method.name}`) ?? '';
  const access = accessOf(binding);
  const inPath = new Set(binding.template.variables.map(({ field }) => field));
  const body = bodyOf(binding, inPath, schemas);
  return {
    operationId: `${service.name}_${method.name}${nth === 0 ? '' : `_${nth + 1}`}`,
    tags: [service.name],
    summary: /^.*?\.(?= |$)/s.exec(comment)?.[0].slice(0, -1) ?? method.name,
    description: [comment, streamWords(binding), access.words].filter(Boolean).join('\n\n'),
    ...(method.proto.options?.deprecated && { deprecated: true }),
    ...access.fields,
    parameters: parametersOf(binding, inPath, schemas),
    ...(body && { requestBody: body }),
    responses: { '200': answerOf(binding, schemas), ...problemResponses(statusesOf(binding)) },
  };
}

function accessOf({ method }: Binding): { words: string; fields: JsonObject } {
  const rule = accessRuleOf(method)!;
  const audience = Audience[rule.audience].toLowerCase();
  if (rule.audience === Audience.PUBLIC) {
    return { words: 'Public: takes no token.', fields: { security: [], 'x-mad-audience': audience } };
  }
  const whose = rule.audience === Audience.PLATFORM ? 'a platform administrator' : 'a member of the organization';
  const words =
    rule.permission === SELF ? `For ${whose}, on what is their own.` : `For ${whose} with \`${rule.permission}\`.`;
  return { words, fields: { 'x-mad-audience': audience, 'x-mad-permission': rule.permission } };
}

function parametersOf(binding: Binding, inPath: ReadonlySet<string>, schemas: Schemas): JsonValue[] {
  const { method } = binding;
  const parameters: JsonValue[] = binding.template.variables.map(({ field: path }) => {
    const field = fieldsOf(method.input, path)!.at(-1)!;
    return parameter('path', path, field, true, schemas);
  });
  if (binding.body !== '*') {
    for (const field of method.input.fields) {
      if (inPath.has(field.name) || field.name === binding.body) continue;
      for (const [path, leaf] of leavesOf(field)) {
        parameters.push(parameter('query', path, leaf, path === field.name && mustBeGiven(field), schemas));
      }
    }
  }
  if (binding.cursor) {
    parameters.push({
      name: 'Last-Event-ID',
      in: 'header',
      description: `The \`id\` of the last event seen; goes on behind it, as \`${binding.cursor.request.name}\` does.`,
      schema: { type: 'string' },
    });
  }
  return parameters;
}

/** What of a field a query can carry: messages by the dotted paths of their own fields. */
function leavesOf(field: DescField, prefix = '', depth = 0): [path: string, leaf: DescField][] {
  const path = prefix + field.name;
  if (field.fieldKind === 'map') return [];
  if (!field.message || field.message.typeName.startsWith('google.protobuf.')) return [[path, field]];
  // A list of messages, or a message that holds itself, has no form in a query.
  if (field.fieldKind === 'list' || depth > 3) return [];
  return field.message.fields.flatMap((inner) => leavesOf(inner, `${path}.`, depth + 1));
}

function parameter(place: 'path' | 'query', name: string, field: DescField, required: boolean, schemas: Schemas) {
  const { description, deprecated, ...schema } = schemas.field(field);
  return {
    name,
    in: place,
    ...(required && { required }),
    ...(description !== undefined && { description }),
    ...(deprecated !== undefined && { deprecated }),
    schema,
  };
}

function bodyOf(binding: Binding, inPath: ReadonlySet<string>, schemas: Schemas): JsonObject | undefined {
  const { method, body } = binding;
  if (body === '') return undefined;
  const schema =
    body === '*' ? schemas.body(method.input, inPath) : schemas.field(fieldsOf(method.input, body)!.at(-1)!);
  const given = method.input.fields.filter((field) => !inPath.has(field.name) && (body === '*' || field.name === body));
  return { required: given.some(mustBeGiven), content: { 'application/json': { schema } } };
}

function answerOf({ method, download }: Binding, schemas: Schemas): JsonObject {
  if (download) {
    const schema = { type: 'string', format: 'binary' };
    return { description: 'The file.', content: { [download.contentType]: { schema } } };
  }
  const description = `${method.output.name}.`;
  const schema = schemas.message(method.output);
  if (method.methodKind === 'unary') return { description, content: { 'application/json': { schema } } };
  return {
    description: `A stream of ${method.output.name}.`,
    content: {
      'application/x-ndjson': {
        schema: {
          description: 'One such object a line.',
          oneOf: [
            { type: 'object', required: ['result'], properties: { result: schema } },
            { type: 'object', required: ['error'], properties: { error: { $ref: '#/components/schemas/Problem' } } },
          ],
        },
      },
      'text/event-stream': {
        schema: {
          type: 'string',
          description: 'The `data` of each event is one answer as JSON.',
          contentMediaType: 'application/json',
          contentSchema: schema,
        },
      },
    },
  };
}

function streamWords({ method, cursor, download }: Binding): string {
  if (method.methodKind === 'unary') return '';
  if (download) return 'A file. One that was cut ends without its last chunk, which clients report as an error.';
  const words =
    'A stream: one JSON object a line, `{"result": …}`, and a last `{"error": …}` where it was cut; or, where the ' +
    'client accepts `text/event-stream`, server-sent events, ended by an event `end` or `error`, with comments while idle.';
  return cursor ? `${words} The events carry an \`id\`: a client that comes back with it misses nothing.` : words;
}

/** The errors an operation can answer with. Those of 413 and 415 need a body, that of 409 a change. */
function statusesOf({ method, body, template }: Binding): number[] {
  const isPublic = accessRuleOf(method)!.audience === Audience.PUBLIC;
  const { idempotencyLevel } = method.proto.options ?? {};
  const changes = idempotencyLevel !== IdempotencyLevel.NO_SIDE_EFFECTS;
  const withResource = template.variables.length > 0;
  return [
    400,
    // A public method that checks credentials refuses them the same way.
    ...(isPublic && !changes ? [] : [401]),
    ...(isPublic ? [] : [403]),
    ...(withResource ? [404] : []),
    ...(changes ? [409] : []),
    ...(body === '' ? [] : [413, 415]),
    429,
    500,
    503,
    504,
  ];
}
