import { Code, ConnectError, type CallOptions, type HandlerContext } from '@connectrpc/connect';
import { TRACEPARENT, traceparentOf } from '@mad/process';
import { traceOf } from './call-trace.ts';
import { callerOf } from './caller.ts';

/** Kept back from a forwarded deadline, so that the inner call fails first and this one can still say why. */
export const DEADLINE_MARGIN_MS = 20;

/** Names the end user to the called service, for audit only. */
export const END_USER_HEADER = 'x-mad-user';

/** Milliseconds left to answer this call, or undefined when it has no deadline. */
export function deadlineOf(ctx: Pick<HandlerContext, 'timeoutMs'>): number | undefined {
  return ctx.timeoutMs();
}

/**
 * Options for a call made while answering another: ends when that one ends, has its deadline less 20 ms, continues its
 * trace and names its end user. Throws DEADLINE_EXCEEDED when no time is left.
 */
export function callOptions(ctx: HandlerContext): CallOptions {
  const left = ctx.timeoutMs();
  if (left !== undefined && left <= DEADLINE_MARGIN_MS) {
    throw new ConnectError('no time is left for an inner call', Code.DeadlineExceeded);
  }
  const headers: Record<string, string> = { [TRACEPARENT]: traceparentOf(traceOf(ctx)) };
  const caller = callerOf(ctx);
  const endUser = caller.kind === 'public' ? undefined : caller.userId;
  if (endUser !== undefined) headers[END_USER_HEADER] = endUser;
  return { signal: ctx.signal, timeoutMs: left === undefined ? undefined : left - DEADLINE_MARGIN_MS, headers };
}
