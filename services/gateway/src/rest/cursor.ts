import {
  getOption,
  hasOption,
  ScalarType,
  type DescField,
  type DescMessage,
  type DescMethod,
  type Message,
} from '@bufbuild/protobuf';
import { cursor as cursorOption } from '@mad/proto/rest';
import { invalid } from '@mad/rpc';

/** How a stream is resumed: as its proto declares (`mad.rest.v1.cursor`). */
export interface StreamCursor {
  /** The request's field that takes the cursor. */
  request: DescField;
  /** The cursor of a message, undefined where it has none. */
  of(message: Message): string | undefined;
  /** The value of a `Last-Event-ID` for the request's field. Throws INVALID_ARGUMENT where it cannot be one. */
  read(lastEventId: string): string;
}

/** The header of a client that comes back to a stream. */
export const LAST_EVENT_ID = 'last-event-id';

/** The cursor a method declares. Throws at start-up on one that names no such fields. */
export function cursorOf(method: DescMethod): StreamCursor | undefined {
  if (!hasOption(method, cursorOption)) return undefined;
  const { request: requestName, response } = getOption(method, cursorOption);
  const fail = (why: string) => new Error(`${method.toString()}: cursor: ${why}`);
  if (method.methodKind !== 'server_streaming') throw fail('only a server stream has one');
  const request = method.input.fields.find(({ name }) => name === requestName);
  if (!request) throw fail(`no field ${requestName} in ${method.input.typeName}`);
  const path = pathOf(method.output, response);
  if (!path) throw fail(`no field ${response} in ${method.output.typeName}`);
  if (request.fieldKind !== 'scalar' || path.at(-1)!.scalar !== request.scalar) {
    throw fail('both fields must be of one scalar type');
  }
  const isNumber = request.scalar !== ScalarType.STRING;
  return {
    request,
    of: (message) => valueAt(message, path),
    read(lastEventId) {
      if (isNumber && !/^\d{1,19}$/.test(lastEventId)) throw invalid('Last-Event-ID', 'must be the id of an event');
      return lastEventId;
    },
  };
}

/** The fields along a dotted path of proto names; unlike a request's path it may lead through lists. */
function pathOf(message: DescMessage, names: string): DescField[] | undefined {
  const path: DescField[] = [];
  let current: DescMessage | undefined = message;
  for (const name of names.split('.')) {
    const field: DescField | undefined = current?.fields.find((one) => one.name === name);
    if (!field || field.fieldKind === 'map') return undefined;
    path.push(field);
    current = field.message;
  }
  return path;
}

function valueAt(message: Message, path: readonly DescField[]): string | undefined {
  let value: unknown = message;
  for (const field of path) {
    value = (value as Record<string, unknown> | undefined)?.[field.localName];
    if (field.fieldKind === 'list') value = (value as unknown[] | undefined)?.at(-1);
  }
  return (value as string | number | bigint | undefined)?.toString();
}
