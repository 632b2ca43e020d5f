import { randomFillSync } from 'node:crypto';

/** Where something is in its trace (W3C Trace Context). */
export interface Trace {
  /** 32 hex digits, the same on every hop. */
  readonly traceId: string;
  /** 16 hex digits, this step's own. */
  readonly spanId: string;
  /** The step it belongs to, absent at the start of a trace. */
  readonly parentSpanId?: string;
  /** Whether spans of the trace are kept. */
  readonly sampled: boolean;
}

/** The header that carries the trace. */
export const TRACEPARENT = 'traceparent';

// version "00", and any later version's first four fields; all-zero ids are invalid
const pattern = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:$|-)/;

/**
 * Continues the trace of a traceparent with a new span; starts a new trace where it is absent or malformed. `keep` is the
 * fraction of new traces that are sampled.
 */
export function continueTrace(traceparent: string | null | undefined, keep = 1): Trace {
  const match = traceparent ? pattern.exec(traceparent) : null;
  if (!match) {
    return { traceId: randomHex(16), spanId: randomHex(8), sampled: keep >= 1 || Math.random() < keep };
  }
  return {
    traceId: match[1]!,
    spanId: randomHex(8),
    parentSpanId: match[2]!,
    sampled: (parseInt(match[3]!, 16) & 1) === 1,
  };
}

/** A new span of the same trace, below this one. */
export function childOf({ traceId, spanId, sampled }: Trace): Trace {
  return { traceId, spanId: randomHex(8), parentSpanId: spanId, sampled };
}

/** The header value that makes what receives it a child of this span. */
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
