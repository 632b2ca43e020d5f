import { readEnv, type Env } from '../env.ts';
import type { Logger } from '../logger.ts';
import { otlpSink } from './otlp.ts';
import { spanFile } from './span-file.ts';
import type { SpanSink, Tracer } from './span.ts';

/** Where a process's spans go. */
export interface TracingConfig {
  /** A file of JSON lines. */
  file?: string;
  /** An OTLP/HTTP collector, e.g. `http://collector:4318`. */
  otlpEndpoint?: string;
  /** The fraction of traces begun here that are kept, 0–1; those begun elsewhere say so themselves. */
  keep: number;
}

/** Reads what every process is told of tracing. Throws a ConfigError. */
export function readTracingConfig(env: Env): TracingConfig {
  return readEnv(env, (r) => {
    const keep = Number(r.string('OTEL_TRACES_SAMPLER_ARG', { default: '1' }));
    if (!(keep >= 0 && keep <= 1)) r.problem('OTEL_TRACES_SAMPLER_ARG', 'must be a number from 0 to 1');
    return {
      file: r.string('TRACE_FILE', { optional: true }),
      otlpEndpoint: r.url('OTEL_EXPORTER_OTLP_ENDPOINT', { optional: true }),
      keep,
    };
  });
}

/** The tracing of one process. */
export interface Tracing {
  /** The tracer of one of its services. */
  tracer(service: string): Promise<Tracer>;
  /** Writes what waits, and stops. */
  close(): Promise<void>;
}

/** Opens where spans go. With neither file nor collector nothing is recorded; traces are still passed on and logged. */
export function openTracing({ file, otlpEndpoint, keep }: TracingConfig, logger: Logger): Tracing {
  const onError = (error: unknown): void => logger.warn({ error }, 'spans cannot be written');
  const lines = file === undefined ? undefined : spanFile(file, { onError });
  const sinks: SpanSink[] = lines === undefined ? [] : [lines];
  return {
    async tracer(service) {
      const sent = otlpEndpoint === undefined ? undefined : await otlpSink(otlpEndpoint, service);
      if (sent) sinks.push(sent);
      return { service, keep, sink: lines && sent ? both(lines, sent) : (lines ?? sent) };
    },
    async close() {
      await Promise.allSettled(sinks.map((sink) => sink.close()));
    },
  };
}

function both(one: SpanSink, other: SpanSink): SpanSink {
  return {
    write(span) {
      one.write(span);
      other.write(span);
    },
    close: async () => void (await Promise.all([one.close(), other.close()])),
  };
}
