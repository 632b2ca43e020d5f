import {
  createRegistry,
  fromBinary,
  fromJson,
  toJson,
  type DescMethod,
  type JsonObject,
  type JsonValue,
} from '@bufbuild/protobuf';
import * as rpc from '@mad/proto/rpc';

const registry = createRegistry(rpc.file_google_rpc_error_details);

/** One error detail as protocols carry it: the message's name and its bytes in base64. */
export function detailJson(type: string, base64: string): JsonObject {
  const typeName = type.replace(/^.*\//, '');
  const desc = registry.getMessage(typeName);
  if (!desc) throw new Error(`unknown error detail ${type}`);
  const json = toJson(desc, fromBinary(desc, Buffer.from(base64, 'base64'))) as JsonObject;
  return { '@type': `type.googleapis.com/${typeName}`, ...json };
}

/** The details of a serialized google.rpc.Status: what gRPC carries in `grpc-status-details-bin`. */
export function detailsOfStatus(bytes: Uint8Array): JsonObject[] {
  const status = fromBinary(rpc.StatusSchema, bytes);
  return status.details.map(({ typeUrl, value }) => detailJson(typeUrl, Buffer.from(value).toString('base64')));
}

/** A response in the one form all clients' answers are compared in; throws where it is no JSON of its message. */
export function canonical({ output }: DescMethod, response: unknown): JsonValue {
  return toJson(output, fromJson(output, response as JsonValue));
}

/** `NOT_FOUND`, `NotFound` or `not_found` as `not_found`; gRPC spells one of them with two l. */
export function codeName(name: string): string {
  const snake = name.replace(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toLowerCase();
  return snake === 'cancelled' ? 'canceled' : snake;
}
