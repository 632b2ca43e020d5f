export { bind, type BoundService } from './bound-service.ts';
export { traceKey, traceOf } from './call-trace.ts';
export { addressOf } from './caller-address.ts';
export {
  actorOf,
  callerKey,
  callerOf,
  orgOf,
  userOf,
  type Actor,
  type Caller,
  type PlatformCaller,
  type ServiceCaller,
  type UserCaller,
} from './caller.ts';
export { codeName } from './code-name.ts';
export { callOptions, deadlineOf, DEADLINE_MARGIN_MS, END_USER_HEADER } from './deadline.ts';
export {
  answeredError,
  ERROR_DOMAIN,
  errorMetadataOf,
  invalid,
  invalidFields,
  isMessageTooLarge,
  notFound,
  reasonOf,
  retryAfterMsOf,
  rpcError,
  violationsOf,
  type ErrorDetail,
  type FieldViolation,
  type RpcErrorOptions,
} from './errors.ts';
export { grpcTransport, type GrpcTransport, type GrpcTransportOptions } from './grpc-transport.ts';
export { checkMessage } from './interceptors/validate.ts';
export { nextPageToken, pageOf, type Page, type PageOptions } from './paging.ts';
export type { Reason } from './reasons.ts';
export { DEFAULT_READ_MAX_BYTES, serveRpc, type RpcServer, type ServeRpcOptions } from './serve.ts';
export { requireName, requireStorable } from './text.ts';
