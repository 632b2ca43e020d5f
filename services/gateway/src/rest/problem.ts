import { create, fromBinary, toJson, type JsonObject, type JsonValue, type Registry } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';

/** HTTP status of each gRPC code (google/rpc/code.proto); 499 is the usual one for a client that went away. */
export const HTTP_STATUS: Record<Code, number> = {
  [Code.Canceled]: 499,
  [Code.Unknown]: 500,
  [Code.InvalidArgument]: 400,
  [Code.DeadlineExceeded]: 504,
  [Code.NotFound]: 404,
  [Code.AlreadyExists]: 409,
  [Code.PermissionDenied]: 403,
  [Code.ResourceExhausted]: 429,
  [Code.FailedPrecondition]: 400,
  [Code.Aborted]: 409,
  [Code.OutOfRange]: 400,
  [Code.Unimplemented]: 501,
  [Code.Internal]: 500,
  [Code.Unavailable]: 503,
  [Code.DataLoss]: 500,
  [Code.Unauthenticated]: 401,
};

/** A problem as RFC 9457 has it, with the gRPC code, the reason to branch on and the fields at fault. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  instance: string;
  /** gRPC code, e.g. NOT_FOUND. */
  code: string;
  /** google.rpc.ErrorInfo's reason, e.g. TENANT_SUSPENDED. */
  reason?: string;
  /** google.rpc.BadRequest's violations. */
  errors?: { field: string; detail: string }[];
  /** All details, as protobuf JSON. */
  details?: JsonObject[];
  /** Seconds to wait before trying again. */
  retryAfter?: number;
}

const words = (code: Code) => Code[code].replace(/(?<=[a-z])(?=[A-Z])/g, ' ');

/** The problem of an error. Whatever is not a ConnectError is a bug and says only "internal error". */
export function problemOf(error: unknown, instance: string, registry: Registry): Problem {
  const edge = edgeRefusal(error);
  const known = edge ?? (error instanceof ConnectError ? error : new ConnectError('internal error', Code.Internal));
  const status = edge?.status ?? HTTP_STATUS[known.code];
  const code = words(known.code).replaceAll(' ', '_').toUpperCase();
  const problem: Problem = {
    type: `urn:mad:problem:${code.toLowerCase().replaceAll('_', '-')}`,
    title: words(known.code),
    status,
    detail: known.rawMessage,
    instance,
    code,
  };
  const details = known.details.map((detail) => detailJson(detail, registry));
  if (details.length > 0) problem.details = details;
  for (const detail of details) {
    const json = (name: string): string => JSON.stringify(detail[name] ?? '').replaceAll('"', '');
    switch (detail['@type']) {
      case 'type.googleapis.com/google.rpc.ErrorInfo':
        problem.reason = json('reason');
        break;
      case 'type.googleapis.com/google.rpc.BadRequest':
        problem.errors = (detail.fieldViolations as { field: string; description: string }[] | undefined)?.map(
          (violation) => ({ field: violation.field, detail: violation.description }),
        );
        break;
      case 'type.googleapis.com/google.rpc.RetryInfo':
        problem.retryAfter = Math.max(1, Math.ceil(Number.parseFloat(json('retryDelay')) || 1));
        break;
    }
  }
  return problem;
}

/** A refusal by the HTTP layer itself (a body over the limit, an unknown media type …), with its own status. */
export class EdgeRefusal extends ConnectError {
  readonly status: number;
  constructor(message: string, code: Code, status: number) {
    super(message, code);
    this.status = status;
  }
}

/** Fastify's own errors carry an HTTP status below 500: they are the caller's mistakes and may be told. */
function edgeRefusal(error: unknown): EdgeRefusal | undefined {
  if (error instanceof EdgeRefusal) return error;
  if (error instanceof ConnectError || !(error instanceof Error)) return undefined;
  const { statusCode } = error as { statusCode?: number };
  if (statusCode === undefined || statusCode < 400 || statusCode >= 500) return undefined;
  return new EdgeRefusal(error.message, statusCode === 413 ? Code.ResourceExhausted : Code.InvalidArgument, statusCode);
}

function detailJson(detail: ConnectError['details'][number], registry: Registry): JsonObject {
  if ('desc' in detail) return withType(detail.desc.typeName, toJson(detail.desc, create(detail.desc, detail.value)));
  const desc = registry.getMessage(detail.type);
  if (!desc) return withType(detail.type, Buffer.from(detail.value).toString('base64'));
  return withType(detail.type, toJson(desc, fromBinary(desc, detail.value), { registry }));
}

function withType(typeName: string, json: JsonValue): JsonObject {
  const rest = typeof json === 'object' && json !== null && !Array.isArray(json) ? json : { value: json };
  return { '@type': `type.googleapis.com/${typeName}`, ...rest };
}
