import type { Interceptor } from '@connectrpc/connect';
import { TRACEPARENT, traceparentOf } from '@mad/process';
import { callerKey, END_USER_HEADER, traceKey } from '@mad/rpc';

/**
 * For calls to other services: adds the service's token. Where the call was given the values of the one it serves
 * (`contextValues: ctx.values`) or its options (`callOptions(ctx)`), the end user and the trace go with it.
 */
export function serviceTokenInterceptor(sign: () => Promise<string>): Interceptor {
  return (next) => async (request) => {
    const { header, contextValues } = request;
    header.set('authorization', `Bearer ${await sign()}`);
    const caller = contextValues.get(callerKey);
    if (caller.kind !== 'public' && caller.userId !== undefined && !header.has(END_USER_HEADER)) {
      header.set(END_USER_HEADER, caller.userId);
    }
    const trace = contextValues.get(traceKey);
    if (trace !== traceKey.defaultValue && !header.has(TRACEPARENT)) header.set(TRACEPARENT, traceparentOf(trace));
    return next(request);
  };
}
