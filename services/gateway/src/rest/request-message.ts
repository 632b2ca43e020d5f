import {
  fromJson,
  ScalarType,
  type DescField,
  type JsonObject,
  type JsonValue,
  type Message,
  type Registry,
} from '@bufbuild/protobuf';
import { invalid } from '@mad/rpc';
import { fieldOf, fieldsOf, type Binding } from './binding.ts';

/** What of an HTTP request becomes the RPC's request. */
export interface RestRequest {
  /** The path's segments, still percent-encoded. */
  segments: string[];
  query: URLSearchParams;
  /** The parsed JSON body, undefined when there was none. */
  body: JsonValue | undefined;
  /** The header of a client that comes back to a stream. */
  lastEventId?: string | undefined;
}

/**
 * Builds the RPC's request: one JSON object (body, then query, then path, then cursor, the later winning), read once by protobuf's
 * own JSON mapping, which does all typing. Unknown or malformed input is INVALID_ARGUMENT naming the field.
 */
export function requestMessage(binding: Binding, request: RestRequest, registry: Registry): Message {
  const json = bodyObject(binding, request.body);
  applyQuery(binding, json, request.query);
  applyPath(binding, json, request.segments);
  applyCursor(binding, json, request.lastEventId);
  try {
    return fromJson(binding.method.input, json, { registry, ignoreUnknownFields: false });
  } catch (error) {
    throw unreadable(error as Error);
  }
}

/** protobuf says `cannot decode field mad.x.v1.Message.page_size from JSON: …` or `cannot decode message … key "x" is unknown`. */
function unreadable(error: Error) {
  const named = /field [\w.]+\.(\w+) from JSON/.exec(error.message) ?? /key "([^"]*)"/.exec(error.message);
  return invalid(named?.[1] ?? 'body', error.message.replace(/^cannot decode [^:]*: /, ''));
}

function bodyObject(binding: Binding, body: JsonValue | undefined): JsonObject {
  if (body === undefined || body === null) return {};
  if (binding.body === '') throw invalid('body', 'this method takes no body');
  if (binding.body !== '*') return { [fieldOf(binding.method.input, binding.body)!.jsonName]: body };
  if (typeof body !== 'object' || Array.isArray(body)) throw invalid('body', 'must be a JSON object');
  return { ...body };
}

function applyQuery(binding: Binding, json: JsonObject, query: URLSearchParams): void {
  const values = Map.groupBy(query, ([key]) => key);
  for (const [key, pairs] of values) {
    if (binding.body === '*') throw invalid(key, 'this method takes its fields in the body, not in the query');
    const fields = fieldsOf(binding.method.input, key);
    if (!fields) throw invalid(key, 'no such field');
    const path = fields.map((field) => field.name).join('.');
    if (binding.template.variables.some((variable) => variable.field === path)) {
      throw invalid(key, 'is given by the path');
    }
    if (binding.body !== '' && fields[0]!.name === binding.body) throw invalid(key, 'belongs in the body');
    setField(
      json,
      fields,
      pairs.map(([, value]) => value),
    );
  }
}

function applyPath(binding: Binding, json: JsonObject, segments: string[]): void {
  for (const variable of binding.template.variables) {
    const last = binding.template.segments[variable.end - 1] === '**' ? undefined : variable.end;
    const raw = segments.slice(variable.start, last);
    const fields = fieldsOf(binding.method.input, variable.field)!;
    let value: string;
    try {
      // Inside a variable of several segments an encoded slash stays encoded, or it would look like a separator.
      const keepSlash = (segment: string) => (variable.spansSegments ? segment.replace(/%2f/gi, '%252F') : segment);
      value = raw.map((segment) => decodeURIComponent(keepSlash(segment))).join('/');
    } catch {
      throw invalid(variable.field, 'malformed percent-encoding');
    }
    const given = json[fields[0]!.jsonName] ?? json[fields[0]!.name];
    if (fields.length === 1 && given !== undefined && given !== value) {
      throw invalid(variable.field, 'the body says otherwise than the path');
    }
    delete json[fields[0]!.name];
    setField(json, fields, [value]);
  }
}

/** A browser repeats the address it first asked for, so where it got to since wins over the query. */
function applyCursor({ cursor }: Binding, json: JsonObject, lastEventId: string | undefined): void {
  if (!cursor || !lastEventId) return;
  delete json[cursor.request.name];
  json[cursor.request.jsonName] = cursor.read(lastEventId);
}

function setField(json: JsonObject, fields: DescField[], values: string[]): void {
  let object = json;
  for (const field of fields.slice(0, -1)) {
    const inner = object[field.jsonName];
    object =
      typeof inner === 'object' && inner !== null && !Array.isArray(inner) ? inner : (object[field.jsonName] = {});
  }
  const field = fields.at(-1)!;
  if (field.fieldKind === 'list') {
    object[field.jsonName] = values.map((value) => jsonOf(field, value));
  } else {
    if (values.length > 1) throw invalid(field.name, 'given more than once');
    object[field.jsonName] = jsonOf(field, values[0]!);
  }
}

const STRING_SHAPED =
  /^google\.protobuf\.(Timestamp|Duration|FieldMask|StringValue|BytesValue|\w*Int\d+Value|DoubleValue|FloatValue)$/;

/** The JSON a path or query string stands for: protobuf's JSON mapping itself takes numbers and enums as strings. */
function jsonOf(field: DescField, text: string): JsonValue {
  const scalar = field.fieldKind === 'scalar' || field.fieldKind === 'list' ? field.scalar : undefined;
  if (scalar === ScalarType.BOOL) {
    if (text !== 'true' && text !== 'false') throw invalid(field.name, 'must be true or false');
    return text === 'true';
  }
  const message = field.fieldKind === 'message' || field.fieldKind === 'list' ? field.message : undefined;
  if (message && !STRING_SHAPED.test(message.typeName)) {
    throw invalid(field.name, 'cannot be given in a path or query');
  }
  if ((field.fieldKind === 'enum' || (field.fieldKind === 'list' && field.enum)) && /^-?\d+$/.test(text))
    return Number(text);
  return text;
}
