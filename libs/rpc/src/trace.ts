import { AsyncLocalStorage } from 'node:async_hooks';
import { randomFillSync } from 'node:crypto';
import { createContextKey, type HandlerContext } from '@connectrpc/connect';

/** Where a call is in its trace (W3C Trace Context). */
export interface Trace {
  /** 32 hex digits, the same on every hop. */
  traceId: string;
  /** 16 hex digits, this call's own. */
  spanId: string;
  /** The caller's span, absent at the start of a trace. */
  parentSpanId?: string;
  sampled: boolean;
}

/** The header that carries the trace. */
export const TRACEPARENT = 'traceparent';

const noTrace: Trace = { traceId: '0'.repeat(32), spanId: '0'.repeat(16), sampled: false };

/** Where the tracing interceptor puts the trace. */
export const traceKey = createContextKey<Trace>(noTrace, { description: 'mad trace' });

/** The trace of this call. */
export function traceOf(ctx: Pick<HandlerContext, 'values'>): Trace {
  return ctx.values.get(traceKey);
}

const running = new AsyncLocalStorage<Trace>();

/** Runs a call in its trace. */
export function inTrace<T>(trace: Trace, call: () => T): T {
  return running.run(trace, call);
}

/**
 * The trace of the call that is being served, for what is far from its context; undefined outside one, and in what a
 * server stream does after its first answer.
 */
export function currentTrace(): Trace | undefined {
  return running.getStore();
}

// version "00", and any later version's first four fields; all-zero ids are invalid
const pattern = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:$|-)/;

/** Continues the trace of a traceparent header with a new span; starts a new trace where it is absent or malformed. */
export function continueTrace(traceparent: string | null | undefined): Trace {
  const match = traceparent ? pattern.exec(traceparent) : null;
  if (!match) return { traceId: randomHex(16), spanId: randomHex(8), sampled: true };
  return {
    traceId: match[1]!,
    spanId: randomHex(8),
    parentSpanId: match[2]!,
    sampled: (parseInt(match[3]!, 16) & 1) === 1,
  };
}

/** The header value that makes a call a child of this span. */
export function traceparentOf({ traceId, spanId, sampled }: Trace): string {
  return `00-${traceId}-${spanId}-${sampled ? '01' : '00'}`;
}

// One fill of random bytes serves hundreds of ids: a system call for each would cost more than the rest of the tracing.
const pool = Buffer.alloc(8192);
let used = pool.length;

function randomHex(bytes: number): string {
  if (used + bytes > pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  used += bytes;
  return pool.toString('hex', used - bytes, used);
}
