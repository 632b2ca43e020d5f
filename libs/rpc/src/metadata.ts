import { Code, ConnectError } from '@connectrpc/connect';
import { Metadata } from '@grpc/grpc-js';

/** Set by the protocol itself, never copied between Headers and Metadata. */
const protocolHeaders = new Set([
  'accept-encoding',
  'connection',
  'content-length',
  'content-type',
  'date',
  'grpc-accept-encoding',
  'grpc-encoding',
  'grpc-message',
  'grpc-status',
  'grpc-timeout',
  'host',
  'te',
  'transfer-encoding',
  'user-agent',
]);

/**
 * Copies Headers into gRPC metadata; `-bin` values travel as bytes. gRPC allows printable ASCII only, Headers more: such a
 * value fails the call with `illegal`.
 */
export function headersToMetadata(headers: Headers | undefined, illegal: Code = Code.Internal): Metadata {
  const metadata = new Metadata();
  headers?.forEach((value, key) => {
    if (protocolHeaders.has(key)) return;
    if (key.endsWith('-bin')) {
      for (const part of value.split(',')) metadata.add(key, Buffer.from(part.trim(), 'base64'));
    } else if (isLegal(value)) {
      metadata.add(key, value);
    } else {
      throw new ConnectError(`the value of the header ${key} is not printable ASCII`, illegal);
    }
  });
  return metadata;
}

/** Removes what gRPC metadata cannot carry: an error must reach its caller whatever hangs on it. */
export function withoutIllegalValues(headers: Headers): Headers {
  const illegal = [...headers].filter(([, value]) => !isLegal(value));
  for (const [key] of illegal) headers.delete(key);
  return headers;
}

function isLegal(value: string): boolean {
  return /^[\x20-\x7e]*$/.test(value);
}

/** Copies gRPC metadata into Headers; `-bin` values become unpadded base64, as Connect writes them. */
export function metadataToHeaders(metadata: Metadata | undefined): Headers {
  const headers = new Headers();
  if (metadata === undefined) return headers;
  for (const key of Object.keys(metadata.getMap())) {
    for (const value of metadata.get(key)) {
      headers.append(key, typeof value === 'string' ? value : value.toString('base64').replace(/=+$/, ''));
    }
  }
  return headers;
}
