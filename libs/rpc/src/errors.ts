import { create, type DescMessage, type MessageInitShape } from '@bufbuild/protobuf';
import { durationFromMs, durationMs, DurationSchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from '@mad/proto/rpc';
import type { Reason } from './reasons.ts';

/** The `domain` of every ErrorInfo of MAD. */
export const ERROR_DOMAIN = 'mad';

/** One wrong field: its path as written in the proto (`spec.tasks[0].name`) and what it should be. */
export interface FieldViolation {
  field: string;
  description: string;
}

/** A typed error detail beside ErrorInfo, e.g. `{ desc: QuotaFailureSchema, value: {...} }`. */
export interface ErrorDetail<D extends DescMessage = DescMessage> {
  desc: D;
  value: MessageInitShape<D>;
}

/** What else an error may carry. */
export interface RpcErrorOptions {
  details?: ErrorDetail[];
  /** Kept for the log; never sent. */
  cause?: unknown;
  /** When to try again, as google.rpc.RetryInfo. */
  retryAfterMs?: number;
}

/** An error a caller can branch on: a gRPC code with google.rpc.ErrorInfo (reason, domain `mad`, metadata). */
export function rpcError(
  code: Code,
  reason: Reason,
  message: string,
  metadata: Record<string, string> = {},
  options: RpcErrorOptions = {},
): ConnectError {
  const details: ErrorDetail[] = [detail(ErrorInfoSchema, { reason, domain: ERROR_DOMAIN, metadata })];
  if (options.retryAfterMs !== undefined) {
    details.push(detail(RetryInfoSchema, { retryDelay: create(DurationSchema, durationFromMs(options.retryAfterMs)) }));
  }
  return new ConnectError(message, code, undefined, [...details, ...(options.details ?? [])], options.cause);
}

function detail<D extends DescMessage>(desc: D, value: MessageInitShape<D>): ErrorDetail {
  return { desc, value };
}

/** INVALID_ARGUMENT naming the fields that are wrong, as google.rpc.BadRequest. */
export function invalidFields(violations: readonly FieldViolation[]): ConnectError {
  const message = violations
    .map(({ field, description }) => (field ? `${field}: ${description}` : description))
    .join('; ');
  const fieldViolations = violations.map(({ field, description }) => ({ field, description }));
  return new ConnectError(message, Code.InvalidArgument, undefined, [detail(BadRequestSchema, { fieldViolations })]);
}

/** INVALID_ARGUMENT for one field, by its name in the proto, e.g. `invalid('page_token', 'belongs to another query')`. */
export function invalid(field: string, description: string): ConnectError {
  return invalidFields([{ field, description }]);
}

/** NOT_FOUND: the resource does not exist, or not in the caller's organization. `what` is its noun, e.g. "pipeline". */
export function notFound(what: string, id: string): ConnectError {
  return rpcError(Code.NotFound, 'RESOURCE_NOT_FOUND', `${what} ${id} not found`, { resource: what, id });
}

/** The ErrorInfo reason of an error, or undefined where it has none. */
export function reasonOf(error: unknown): string | undefined {
  return error instanceof ConnectError ? error.findDetails(ErrorInfoSchema)[0]?.reason : undefined;
}

/**
 * Whether a message was refused for its size alone, by us or by the other end: it is as large the next time. grpc-js and
 * Connect give this the same code as a server without room, and no reason.
 */
export function isMessageTooLarge(error: unknown): boolean {
  return (
    error instanceof ConnectError &&
    error.code === Code.ResourceExhausted &&
    reasonOf(error) === undefined &&
    /larger than (?:max|configured)\b/.test(error.rawMessage)
  );
}

/** The ErrorInfo metadata of an error, empty where it has none. */
export function errorMetadataOf(error: unknown): Record<string, string> {
  return (error instanceof ConnectError ? error.findDetails(ErrorInfoSchema)[0]?.metadata : undefined) ?? {};
}

/** The fields an error names, empty where it names none. */
export function violationsOf(error: unknown): FieldViolation[] {
  if (!(error instanceof ConnectError)) return [];
  return error
    .findDetails(BadRequestSchema)
    .flatMap(({ fieldViolations }) => fieldViolations.map(({ field, description }) => ({ field, description })));
}

/** When to try again, in milliseconds, or undefined where the error does not say. */
export function retryAfterMsOf(error: unknown): number | undefined {
  if (!(error instanceof ConnectError)) return undefined;
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return delay && durationMs(delay);
}

/**
 * What a caller is told about a thrown value. A ConnectError goes as it is. Anything else thrown after the call was cut is
 * the cut (its signal's reason); and what remains is a bug: the caller sees `internal error`, `cause` keeps the error.
 */
export function answeredError(error: unknown, signal: AbortSignal): ConnectError {
  if (error instanceof ConnectError) return error;
  if (signal.aborted) {
    // Whatever a handler throws once its call was cut (a cancelled query, a closed socket) is that cut.
    if (signal.reason instanceof ConnectError) return signal.reason;
    return new ConnectError('the client cancelled the call', Code.Canceled, undefined, undefined, error);
  }
  return new ConnectError('internal error', Code.Internal, undefined, undefined, error);
}
