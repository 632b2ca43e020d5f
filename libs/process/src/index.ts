export { backoff, type BackoffOptions } from './backoff.ts';
export { DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS } from './durations.ts';
export { ConfigError, readEnv, type Env, type EnvReader } from './env.ts';
export { uuidTime, uuidv7 } from './ids.ts';
export {
  createLogger,
  loggedError,
  type LogLevel,
  type LoggedError,
  type Logger,
  type LoggerOptions,
} from './logger.ts';
export { serveMetrics, type MetricsServer } from './metrics-server.ts';
export { createMetrics, mergedMetricsText, type Metrics } from './metrics.ts';
export { exitCodes, runMain, type RunMainOptions, type Running, type ServiceDeps } from './run-main.ts';
export { Rounds, type RoundsOptions } from './rounds.ts';
export { sleep } from './sleep.ts';
export {
  beginSpan,
  currentSpan,
  inSpan,
  messagesInSpan,
  outsideTraces,
  runSpan,
  spanned,
  type FinishedSpan,
  type Span,
  type SpanAttributes,
  type SpanKind,
  type SpanSink,
  type Tracer,
} from './tracing/span.ts';
export type { SpanLine } from './tracing/span-file.ts';
export { continueTrace, TRACEPARENT, traceparentOf, type Trace } from './tracing/trace.ts';
export { openTracing, readTracingConfig, type Tracing, type TracingConfig } from './tracing/tracing.ts';
