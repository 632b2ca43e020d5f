import { inSpan, runSpan, type Span } from '@mad/process';

/** Where a message keeps the trace it belongs to, beside what its sender said. */
export const TRACE_KEY = '_traceparent';

/** A message as it was sent, and its trace. */
export function opened<D extends object>(data: D | null): { data: D; traceparent: string | undefined } {
  const { [TRACE_KEY]: traceparent, ...rest } = (data ?? {}) as D & { [TRACE_KEY]?: string };
  return { data: rest as unknown as D, traceparent };
}

/**
 * Works a batch inside the trace of its messages where they have one in common. Where they have several the work is a
 * trace of its own, and each of theirs gets a span that names it.
 */
export async function runBatch(
  begin: (queue: string, traceparent: string | undefined) => Span,
  queue: string,
  traceparents: readonly (string | undefined)[],
  fn: () => Promise<void>,
): Promise<void> {
  const byTrace = new Map(traceparents.map((traceparent) => [traceparent?.split('-')[1] ?? '', traceparent]));
  if (byTrace.size === 1) return runSpan(begin(queue, [...byTrace.values()][0]), fn);
  const work = begin(queue, undefined);
  const theirs = [...byTrace.values()].filter((one) => one !== undefined).map((one) => begin(queue, one));
  for (const span of theirs) span.set({ batch_trace_id: work.traceId });
  try {
    await inSpan(work, fn);
    for (const span of [work, ...theirs]) span.end();
  } catch (error) {
    for (const span of [work, ...theirs]) span.end(error);
    throw error;
  }
}
