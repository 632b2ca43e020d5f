import {
  fromBinary,
  toBinary,
  type DescMessage,
  type DescMethod,
  type DescService,
  type Message,
  type MessageShape,
} from '@bufbuild/protobuf';
import type { ServiceDefinition } from '@grpc/grpc-js';

/** The path of a method on the wire, e.g. `/mad.catalog.v1.JobService/GetJob`. */
export function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** Serializes without copying: grpc-js wants a Buffer, protobuf-es makes a Uint8Array. */
export function encode<D extends DescMessage>(desc: D, message: MessageShape<D>): Buffer {
  const bytes = toBinary(desc, message);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Parses without copying. `bytes` fields of the message are plain Uint8Arrays, as on every transport. */
export function decode<D extends DescMessage>(desc: D, bytes: Buffer): MessageShape<D> {
  return fromBinary(desc, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
}

/** True for methods whose requests arrive as a stream. */
export function hasRequestStream(method: DescMethod): boolean {
  return method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming';
}

/** The grpc-js definition of a protobuf-es service. `onUnreadable` hears of requests that cannot be parsed. */
export function serviceDefinition(
  service: DescService,
  onUnreadable: (method: DescMethod, error: unknown) => void,
): ServiceDefinition {
  return Object.fromEntries(
    service.methods.map((method) => [
      method.localName,
      {
        path: pathOf(method),
        requestStream: hasRequestStream(method),
        responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
        requestSerialize: (message: Message) => encode(method.input, message),
        requestDeserialize: (bytes: Buffer): Message => {
          try {
            return decode(method.input, bytes);
          } catch (error) {
            onUnreadable(method, error);
            throw error;
          }
        },
        responseSerialize: (message: Message) => encode(method.output, message),
        responseDeserialize: (bytes: Buffer): Message => decode(method.output, bytes),
      },
    ]),
  );
}
