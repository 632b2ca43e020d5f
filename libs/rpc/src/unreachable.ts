import type { DescMethod } from '@bufbuild/protobuf';
import { Code, type ConnectError } from '@connectrpc/connect';
import { status as grpcStatus, type StatusObject } from '@grpc/grpc-js';
import type { Line } from './connection.ts';
import { rpcError } from './errors.ts';

/** How grpc-js itself begins the status of a call that no server has seen. */
const BY_GRPC_JS = /^(?:No connection established|Name resolution failed|Channel closed before call started)/;

/** True when a call ended because there was no connection to send it over. */
export function neverConnected({ code, details }: StatusObject): boolean {
  return code === grpcStatus.UNAVAILABLE && BY_GRPC_JS.test(details);
}

/**
 * UNAVAILABLE for a service that could not be reached. grpc-js's own text has its address and the socket's error: users are
 * told neither; the cause has both, for the log.
 */
export function unreachable({ parent }: DescMethod, { address, failure }: Line, status: StatusObject): ConnectError {
  const cause = new Error(`${address}: ${failure ?? status.details}`);
  const text = `${parent.typeName} is not reachable`;
  return rpcError(Code.Unavailable, 'SERVICE_UNAVAILABLE', text, { service: parent.typeName }, { cause });
}
