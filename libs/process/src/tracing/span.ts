import { AsyncLocalStorage } from 'node:async_hooks';
import { childOf, continueTrace, type Trace } from './trace.ts';

/** What a span is to its trace (OpenTelemetry's kinds). */
export type SpanKind = 'server' | 'client' | 'internal' | 'producer' | 'consumer';

/** Facts of a span. Never secrets, never what people wrote. */
export type SpanAttributes = Record<string, string | number | boolean | undefined>;

/** A span that has ended. */
export interface FinishedSpan {
  service: string;
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: SpanKind;
  /** Milliseconds since 1970, with fractions. */
  startMs: number;
  durationMs: number;
  /** Why it failed, absent when it did not. */
  error?: string;
  attributes: SpanAttributes;
}

/** Where spans go when they end. */
export interface SpanSink {
  write(span: FinishedSpan): void;
  /** Writes what waits, and stops. */
  close(): Promise<void>;
}

/** Begins the spans of one service. */
export interface Tracer {
  readonly service: string;
  /** The fraction of traces begun here that are kept, 0–1. */
  readonly keep: number;
  readonly sink: SpanSink | undefined;
}

/** A step of a trace. One that is not sampled costs an object and nothing else. */
export class Span implements Trace {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly sampled: boolean;
  readonly #tracer: Tracer | undefined;
  readonly #name: string;
  readonly #kind: SpanKind;
  readonly #startMs: number;
  /** Shared by all spans below one that was begun here: how many more are kept. */
  readonly #room: { left: number };
  #attributes: SpanAttributes;
  #ended = false;

  constructor(tracer: Tracer | undefined, trace: Trace, name: string, kind: SpanKind, options: SpanOptions = {}) {
    this.traceId = trace.traceId;
    this.spanId = trace.spanId;
    this.parentSpanId = trace.parentSpanId;
    this.sampled = trace.sampled;
    this.#tracer = tracer?.sink !== undefined && trace.sampled ? tracer : undefined;
    this.#name = name;
    this.#kind = kind;
    this.#startMs = this.#tracer === undefined ? 0 : (options.startMs ?? epochNow());
    this.#attributes = options.attributes ?? {};
    this.#room = options.room ?? { left: MAX_SPANS_BELOW };
  }

  /** True when somebody will read it: only then are facts worth collecting. */
  get recording(): boolean {
    return this.#tracer !== undefined;
  }

  set(attributes: SpanAttributes): void {
    if (this.recording) this.#attributes = { ...this.#attributes, ...attributes };
  }

  /** A step below this one; undefined where nobody will read it. */
  child(name: string, kind: SpanKind, attributes?: SpanAttributes): Span | undefined {
    if (!this.recording || this.#room.left <= 0) return undefined;
    this.#room.left -= 1;
    return new Span(this.#tracer, childOf(this), name, kind, { attributes, room: this.#room });
  }

  /** Ends it, once. `error` is why it failed. */
  end(error?: unknown): void {
    const tracer = this.#tracer;
    if (tracer === undefined || this.#ended) return;
    this.#ended = true;
    const { traceId, spanId, parentSpanId } = this;
    tracer.sink!.write({
      service: tracer.service,
      traceId,
      spanId,
      ...(parentSpanId === undefined ? {} : { parentSpanId }),
      name: this.#name,
      kind: this.#kind,
      startMs: this.#startMs,
      durationMs: Math.max(0, epochNow() - this.#startMs),
      ...(error === undefined ? {} : { error: messageOf(error) }),
      attributes: this.#attributes,
    });
  }
}

/** How to begin a span. */
export interface SpanOptions {
  attributes?: SpanAttributes;
  /** When it began, if not now: milliseconds since 1970. */
  startMs?: number;
  /** Of the span above, which it shares. */
  room?: { left: number };
}

/** A stream watched for an hour must not fill the file: what comes later is not kept. */
const MAX_SPANS_BELOW = 1_000;

const current = new AsyncLocalStorage<Span | undefined>();

/** The span this code runs in. */
export function currentSpan(): Span | undefined {
  return current.getStore();
}

/**
 * Continues the trace that came from outside (another process, a queue) with a span of this service, or starts a trace
 * where there is none. Run the work with `inSpan` and end the span.
 */
export function beginSpan(
  tracer: Tracer | undefined,
  traceparent: string | null | undefined,
  name: string,
  kind: SpanKind,
  options?: SpanOptions,
): Span {
  return new Span(tracer, continueTrace(traceparent, tracer?.keep), name, kind, options);
}

/** Runs `fn` in this span: what it begins is below it, what it logs has its trace. Does not end it. */
export function inSpan<T>(span: Span | undefined, fn: () => T): T {
  return current.run(span, fn);
}

/** Runs `fn` in a span and ends that when its promise settles. Failures are kept and thrown on. */
export async function runSpan<T>(span: Span, fn: (span: Span) => Promise<T>): Promise<T> {
  try {
    const result = await current.run(span, fn, span);
    span.end();
    return result;
  } catch (error) {
    span.end(error);
    throw error;
  }
}

/** Runs `fn` in a span below the current one. Where nobody reads spans it only runs `fn`. */
export function spanned<T>(
  name: string,
  kind: SpanKind,
  attributes: SpanAttributes | undefined,
  fn: () => Promise<T>,
): Promise<T> {
  const span = current.getStore()?.child(name, kind, attributes);
  return span === undefined ? fn() : runSpan(span, fn);
}

/** Runs `fn` outside of any trace: what lives longer than the request that happened to begin it. */
export function outsideTraces<T>(fn: () => T): T {
  return current.run(undefined, fn);
}

/** The messages, each pulled inside the span: an async generator runs in the context of whoever pulls it. */
export function messagesInSpan<T>(span: Span, messages: AsyncIterable<T>): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator](): AsyncIterator<T> {
      const source = messages[Symbol.asyncIterator]();
      return {
        next: () => current.run(span, () => source.next()),
        // Who stops pulling says so by one of these; a source that cannot be told is left without them.
        ...(source.return && { return: (value?: unknown) => current.run(span, () => source.return!(value)) }),
        ...(source.throw && { throw: (error?: unknown) => current.run(span, () => source.throw!(error)) }),
      };
    },
  };
}

const MAX_ERROR_LENGTH = 500;

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).slice(0, MAX_ERROR_LENGTH);
}

/** The clock may be set; between that it must not go in steps of a millisecond. */
const MAX_DRIFT_MS = 5;
let epoch = Date.now() - performance.now();

function epochNow(): number {
  const elapsed = performance.now();
  const wall = Date.now();
  if (Math.abs(wall - (epoch + elapsed)) > MAX_DRIFT_MS) epoch = wall - elapsed;
  return epoch + elapsed;
}
