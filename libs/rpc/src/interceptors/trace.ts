import type { DescMethod } from '@bufbuild/protobuf';
import { createContextKey, type Interceptor } from '@connectrpc/connect';
import { beginSpan, inSpan, messagesInSpan, TRACEPARENT, type Span, type Tracer } from '@mad/process';
import { callerKey } from '../caller.ts';
import { codeName } from '../code-name.ts';
import { methodName } from '../method-name.ts';
import { traceKey } from '../call-trace.ts';
import type { CallObserver } from './observe.ts';

/** Calls that arrive every second from everywhere, and mean nothing by themselves: they begin no trace that is kept. */
const QUIET = new Set([
  'grpc.health.v1.Health/Check',
  'grpc.health.v1.Health/Watch',
  'mad.catalog.v1.QueueService/LeaseTasks',
  'mad.catalog.v1.QueueService/HeartbeatTasks',
  'mad.provisioner.v1.RouteService/WatchTenantChanges',
  'mad.provisioner.v1.TenantService/GetFleetHealth',
]);

const spanKey = createContextKey<Span | undefined>(undefined, { description: 'mad span' });

/**
 * Continues the caller's trace, or starts one, with a span of this call: every handler has `traceOf(ctx)` and runs inside
 * the span, so that its transactions and calls are below it.
 */
export function traceInterceptor(tracer: Tracer | undefined): Interceptor {
  const quiet = new Map<DescMethod, boolean>();
  const isQuiet = (method: DescMethod): boolean => {
    let known = quiet.get(method);
    if (known === undefined) quiet.set(method, (known = QUIET.has(methodName(method))));
    return known;
  };
  return (next) => async (request) => {
    const traceparent = request.header.get(TRACEPARENT);
    const kept = traceparent === null && isQuiet(request.method) ? undefined : tracer;
    const span = beginSpan(kept, traceparent, methodName(request.method), 'server');
    request.contextValues.set(traceKey, span);
    request.contextValues.set(spanKey, span);
    const response = await inSpan(span, () => next(request));
    if (response.stream) return { ...response, message: messagesInSpan(span, response.message) };
    return response;
  };
}

/** Ends the span of a call with what came of it. */
export const endSpan: CallObserver = ({ request, error }) => {
  const span = request.contextValues.get(spanKey);
  if (span === undefined || !span.recording) return;
  const caller = request.contextValues.get(callerKey);
  span.set({
    code: codeName(error?.code),
    caller: caller.kind === 'service' ? caller.service : caller.kind,
    org_id: caller.kind === 'user' ? caller.orgId : undefined,
  });
  span.end(error?.rawMessage);
};
