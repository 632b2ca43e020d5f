import { Code } from '@connectrpc/connect';
import type { Logger } from '@mad/process';
import { callerKey, type Caller } from '../caller.ts';
import { codeName } from '../code-name.ts';
import { reasonOf } from '../errors.ts';
import { methodName } from '../method-name.ts';
import { traceKey } from '../call-trace.ts';
import type { CallObserver } from './observe.ts';

/** Probes arrive every few seconds from everywhere: their lines are for debugging. */
const quietServices = new Set(['grpc.health.v1.Health', 'grpc.reflection.v1.ServerReflection']);

/** Codes that mean a defect of ours, logged as errors with their cause. */
const defects = new Set<Code | undefined>([Code.Internal, Code.Unknown, Code.DataLoss]);

/** One line per call: method, code, ms, organization, trace, caller. */
export function accessLog(logger: Logger): CallObserver {
  return ({ request, error, durationMs }) => {
    const defect = defects.has(error?.code);
    const level = defect ? 'error' : quietServices.has(request.service.typeName) ? 'debug' : 'info';
    if (!logger.isLevelEnabled(level)) return;
    const caller = request.contextValues.get(callerKey);
    const line: Record<string, unknown> = {
      method: methodName(request.method),
      code: codeName(error?.code),
      ms: Math.round(durationMs * 100) / 100,
      org_id: organizationOf(caller, request.message),
      trace_id: request.contextValues.get(traceKey).traceId,
      caller: caller.kind,
    };
    if (caller.kind === 'service') line['caller_service'] = caller.service;
    if (caller.kind !== 'public' && caller.userId !== undefined) line['user_id'] = caller.userId;
    if (error) {
      line['reason'] = reasonOf(error);
      if (defect) line['error'] = error;
      else line['message'] = error.rawMessage.slice(0, 500);
      // Users are not told what exactly is away; operators are.
      if (error.code === Code.Unavailable) line['cause'] = rootCause(error)?.slice(0, 500);
    }
    logger[level](line, 'rpc');
  };
}

/** The message of the innermost cause, undefined where there is none. */
function rootCause(error: Error): string | undefined {
  const { cause } = error;
  return cause instanceof Error ? (rootCause(cause) ?? cause.message) : undefined;
}

/** The token's organization; for a service the one its request names. */
function organizationOf(caller: Caller, message: unknown): string | undefined {
  if (caller.kind === 'user') return caller.orgId;
  if (caller.kind !== 'service') return undefined;
  const orgId = (message as { orgId?: unknown }).orgId;
  return typeof orgId === 'string' ? orgId : undefined;
}
