import type { Interceptor } from '@connectrpc/connect';
import { continueTrace, inTrace, traceKey, TRACEPARENT } from '../trace.ts';

/** Continues the caller's trace, or starts one: every handler has `traceOf(ctx)`, and what it awaits `currentTrace()`. */
export const traceInterceptor: Interceptor = (next) => (request) => {
  const trace = continueTrace(request.header.get(TRACEPARENT));
  request.contextValues.set(traceKey, trace);
  return inTrace(trace, () => next(request));
};
