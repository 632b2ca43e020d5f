import { ScalarType, type DescEnum, type DescField, type DescMessage, type JsonObject } from '@bufbuild/protobuf';
import type { FieldRules } from '@mad/proto/validate';
import type { Comments } from './comments.ts';
import { constraintsOf, constraintWords, mustBeGiven, rulesOf } from './constraints.ts';

/** The schemas of a document: what protobuf's JSON mapping makes of messages and enums. */
export interface Schemas {
  /** A reference to a message's schema, which is added with all it is made of. */
  message(message: DescMessage): JsonObject;
  /** The schema of one field, with its comment and constraints. */
  field(field: DescField): JsonObject;
  /** An RPC's request as a body: what the path gives is left out. */
  body(message: DescMessage, inPath: ReadonlySet<string>): JsonObject;
  /** Everything that was asked for, by name. */
  all(): JsonObject;
}

/** The JSON of messages that have a form of their own in JSON (protobuf.dev/programming-guides/json). */
const WELL_KNOWN: Record<string, JsonObject> = {
  'google.protobuf.Timestamp': { type: 'string', format: 'date-time' },
  'google.protobuf.Duration': { type: 'string', pattern: String.raw`^-?\d+(\.\d+)?s$` },
  'google.protobuf.FieldMask': { type: 'string' },
  'google.protobuf.Empty': { type: 'object' },
  'google.protobuf.Struct': { type: 'object' },
  'google.protobuf.Value': {},
  'google.protobuf.ListValue': { type: 'array' },
  'google.protobuf.Any': { type: 'object', properties: { '@type': { type: 'string' } }, required: ['@type'] },
  'google.protobuf.StringValue': { type: 'string' },
  'google.protobuf.BoolValue': { type: 'boolean' },
  'google.protobuf.DoubleValue': { type: 'number' },
  'google.protobuf.FloatValue': { type: 'number' },
  'google.protobuf.Int32Value': { type: 'integer', format: 'int32' },
  'google.protobuf.Int64Value': { type: 'string', format: 'int64' },
};

/** Collects schemas. `inRequests` are the messages that clients send: of all others every field is always there. */
export function collectSchemas(comments: Comments, inRequests: ReadonlySet<string>): Schemas {
  const schemas = new Map<string, JsonObject>();
  const reference = (name: string): JsonObject => ({ $ref: `#/components/schemas/${name}` });

  const objectOf = (message: DescMessage, fields: readonly DescField[]): JsonObject => {
    const sent = inRequests.has(message.typeName);
    const required = fields.filter(sent ? mustBeGiven : alwaysThere).map((field) => field.jsonName);
    return {
      type: 'object',
      ...describe(comments.get(message.typeName)),
      properties: Object.fromEntries(fields.map((field) => [field.jsonName, fieldSchema(field)])),
      ...(required.length > 0 && { required }),
      ...(message.proto.options?.deprecated && { deprecated: true }),
    };
  };

  const messageRef = (message: DescMessage): JsonObject => {
    const wellKnown = WELL_KNOWN[message.typeName];
    if (wellKnown) return { ...wellKnown };
    if (!schemas.has(message.typeName)) {
      // Reserved first: a message may hold itself.
      schemas.set(message.typeName, {});
      schemas.set(message.typeName, objectOf(message, message.fields));
    }
    return reference(message.typeName);
  };

  const enumRef = (one: DescEnum): JsonObject => {
    if (!schemas.has(one.typeName)) {
      const meanings = one.values.map(({ name }) => {
        const meaning = comments.get(`${one.typeName}.${name}`);
        return meaning === undefined ? `* \`${name}\`` : `* \`${name}\`: ${meaning}`;
      });
      schemas.set(one.typeName, {
        type: 'string',
        enum: one.values.map(({ name }) => name),
        description: [comments.get(one.typeName), meanings.join('\n')].filter(Boolean).join('\n\n'),
      });
    }
    return reference(one.typeName);
  };

  const valueSchema = (field: Pick<DescField, 'scalar' | 'message' | 'enum'>, rules?: FieldRules): JsonObject => {
    if (field.message) return messageRef(field.message);
    if (field.enum) return enumRef(field.enum);
    return { ...scalarSchema(field.scalar!), ...constraintsOf(rules) };
  };

  const typeSchema = (field: DescField): JsonObject => {
    const rules = rulesOf(field);
    switch (field.fieldKind) {
      case 'list': {
        const items = rules?.type.case === 'repeated' ? rules.type.value.items : undefined;
        return { type: 'array', items: valueSchema(field, items), ...constraintsOf(rules) };
      }
      case 'map': {
        const values = rules?.type.case === 'map' ? rules.type.value.values : undefined;
        const additionalProperties = valueSchema(field, values);
        return { type: 'object', additionalProperties, ...constraintsOf(rules) };
      }
      default:
        return valueSchema(field, rules);
    }
  };

  const fieldSchema = (field: DescField): JsonObject => {
    const schema = typeSchema(field);
    const words = constraintWords(rulesOf(field));
    const comment = [comments.get(`${field.parent.typeName}.${field.name}`), words && `Must be ${words}.`]
      .filter(Boolean)
      .join(' ');
    return { ...schema, ...describe(comment), ...(field.proto.options?.deprecated && { deprecated: true }) };
  };

  return {
    message: messageRef,
    field: fieldSchema,
    body(message, inPath) {
      const name = message.typeName;
      if (!schemas.has(name)) {
        schemas.set(
          name,
          objectOf(
            message,
            message.fields.filter((field) => !inPath.has(field.name)),
          ),
        );
      }
      return reference(name);
    },
    all: () => Object.fromEntries([...schemas].toSorted(([a], [b]) => (a < b ? -1 : 1))),
  };
}

/** The messages that can be part of a request, by name. */
export function messagesIn(roots: Iterable<DescMessage>): Set<string> {
  const found = new Set<string>();
  const visit = (message: DescMessage): void => {
    if (found.has(message.typeName)) return;
    found.add(message.typeName);
    for (const field of message.fields) if (field.message) visit(field.message);
  };
  for (const root of roots) visit(root);
  return found;
}

/** Answers carry every field but messages and `optional` ones that are unset, and the members of a oneof. */
function alwaysThere(field: DescField): boolean {
  if (field.oneof) return false;
  return field.fieldKind === 'list' || field.fieldKind === 'map' || (!field.message && !field.proto.proto3Optional);
}

const describe = (comment: string | undefined): JsonObject => (comment ? { description: comment } : {});

function scalarSchema(scalar: ScalarType): JsonObject {
  switch (scalar) {
    case ScalarType.BOOL:
      return { type: 'boolean' };
    case ScalarType.STRING:
      return { type: 'string' };
    case ScalarType.BYTES:
      return { type: 'string', contentEncoding: 'base64' };
    case ScalarType.DOUBLE:
      return { type: 'number', format: 'double' };
    case ScalarType.FLOAT:
      return { type: 'number', format: 'float' };
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return { type: 'string', format: 'int64', pattern: String.raw`^-?\d{1,19}$`, examples: ['42'] };
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return { type: 'string', format: 'uint64', pattern: String.raw`^\d{1,20}$`, examples: ['42'] };
    default:
      return { type: 'integer', format: 'int32' };
  }
}
