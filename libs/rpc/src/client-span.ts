import type { DescMethod } from '@bufbuild/protobuf';
import { currentSpan, TRACEPARENT, traceparentOf, type Span, type Trace } from '@mad/process';
import { methodName } from './method-name.ts';

/** The span of a call that is about to be made; undefined where nobody reads it. */
export function clientSpan(method: DescMethod): Span | undefined {
  return currentSpan()?.child(methodName(method), 'client');
}

/**
 * The headers that carry the trace: of the span of this call, or of what it is made in. A traceparent that was given and is
 * of another trace stays.
 */
export function withTrace(
  header: ConstructorParameters<typeof Headers>[0],
  span: Span | undefined,
): Headers | ConstructorParameters<typeof Headers>[0] {
  const trace: Trace | undefined = span ?? currentSpan();
  if (trace === undefined) return header;
  const headers = new Headers(header);
  const given = headers.get(TRACEPARENT);
  if (given === null || given.includes(trace.traceId)) headers.set(TRACEPARENT, traceparentOf(trace));
  return headers;
}

/** The messages of an answer, whose end is the span's. */
export async function* messagesUntilEnd<T>(span: Span, messages: AsyncIterable<T>): AsyncGenerator<T> {
  let failure: unknown;
  try {
    yield* messages;
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    span.end(failure);
  }
}
