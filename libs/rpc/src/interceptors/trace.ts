import type { Interceptor } from '@connectrpc/connect';
import { continueTrace, traceKey, TRACEPARENT } from '../trace.ts';

/** Continues the caller's trace, or starts one: every handler has `traceOf(ctx)`. */
export const traceInterceptor: Interceptor = (next) => (request) => {
  request.contextValues.set(traceKey, continueTrace(request.header.get(TRACEPARENT)));
  return next(request);
};
