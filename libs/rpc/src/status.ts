import { create } from '@bufbuild/protobuf';
import { Code, ConnectError, encodeBinaryHeader } from '@connectrpc/connect';
import { findTrailerError, setTrailerStatus } from '@connectrpc/connect/protocol-grpc';
import type { Metadata, StatusObject } from '@grpc/grpc-js';
import { StatusSchema } from '@mad/proto/rpc';
import { headersToMetadata, metadataToHeaders, withoutIllegalValues } from './metadata.ts';

const DETAILS = 'grpc-status-details-bin';

/** The gRPC status that carries an error with its details and metadata, beside the trailers the handler set. */
export function statusOf(
  error: ConnectError,
  trailer: Headers | undefined,
): { code: number; details: string; metadata: Metadata } {
  const all = setTrailerStatus(new Headers(trailer), error);
  // grpc-message is percent-decoded differently by grpc-js and Connect: a literal "%3A" survives only in the details.
  if (!all.has(DETAILS) && error.rawMessage.includes('%')) {
    const status = create(StatusSchema, { code: error.code, message: error.rawMessage });
    all.set(DETAILS, encodeBinaryHeader(status, StatusSchema));
  }
  return { code: error.code, details: error.rawMessage, metadata: headersToMetadata(withoutIllegalValues(all)) };
}

/** grpc-js decodes grpc-message with decodeURI, which leaves these characters escaped. */
const stillEscaped = /%(?:3B|2F|3F|3A|40|26|3D|2B|24|2C|23)/gi;

/** The error of a received gRPC status, with details and metadata. */
export function errorOfStatus(status: StatusObject): ConnectError {
  const trailer = metadataToHeaders(status.metadata);
  trailer.set('grpc-status', String(status.code));
  trailer.set('grpc-message', encodeURIComponent(status.details.replace(stillEscaped, decodeURIComponent)));
  return findTrailerError(trailer) ?? new ConnectError(status.details, Code.Unknown);
}
