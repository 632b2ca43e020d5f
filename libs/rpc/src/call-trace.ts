import { createContextKey, type HandlerContext } from '@connectrpc/connect';
import type { Trace } from '@mad/process';

const noTrace: Trace = { traceId: '0'.repeat(32), spanId: '0'.repeat(16), sampled: false };

/** Where the tracing interceptor puts the trace. */
export const traceKey = createContextKey<Trace>(noTrace, { description: 'mad trace' });

/** The trace of this call. */
export function traceOf(ctx: Pick<HandlerContext, 'values'>): Trace {
  return ctx.values.get(traceKey);
}
