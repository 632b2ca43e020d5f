import { SECOND_MS } from './durations.ts';
import { ConfigError, readEnv } from './env.ts';
import { createLogger, LOG_LEVELS, type Logger, type LoggerOptions } from './logger.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import type { Tracer } from './tracing/span.ts';
import { openTracing, readTracingConfig, type Tracing } from './tracing/tracing.ts';

/** A running service, as its start function returns it. */
export interface Running {
  /** Stops taking work, finishes what is in flight, lets go of everything. */
  close(): Promise<void>;
}

/** What a service is given by the process it runs in. */
export interface ServiceDeps {
  logger: Logger;
  metrics?: Metrics;
  tracer?: Tracer;
}

/** Exit codes of every main.ts. */
export const exitCodes = { ok: 0, failed: 1, config: 2 } as const;

/** Options of runMain. */
export interface RunMainOptions extends LoggerOptions {
  /** A close that takes longer ends the process with code 1. Default 30 s. */
  closeTimeoutMs?: number;
}

/**
 * Runs a service as this process, with a log, metrics and a tracer: starts it, closes it on SIGTERM or SIGINT (a second signal ends the process at once) and
 * exits 0. A wrong configuration is printed and exits 2; any other failure, an unhandled rejection included, is logged
 * and exits 1. Never returns control to a process that half works.
 */
export function runMain(
  service: string,
  start: (deps: Required<ServiceDeps>) => Promise<Running>,
  options: RunMainOptions = {},
): Promise<void> {
  const log = createLogger(service, options);
  let tracing: Tracing | undefined;
  const started = Promise.resolve().then(async () => {
    // Every service's log is set by the same name; it is read here because a log is needed before any configuration.
    log.level = options.level ?? readEnv(process.env, (r) => r.oneOf('LOG_LEVEL', LOG_LEVELS, 'info'));
    tracing = openTracing(readTracingConfig(process.env), log);
    const tracer = await tracing.tracer(service);
    return start({ logger: log, metrics: createMetrics(service, { process: true }), tracer });
  });
  let closing: Promise<void> | undefined;

  const end = (code: number): never => process.exit(code);
  const close = (reason: string, code: number): Promise<void> =>
    (closing ??= (async () => {
      log.info({ reason }, 'closing');
      setTimeout(
        () => {
          log.error('close did not finish in time');
          end(exitCodes.failed);
        },
        options.closeTimeoutMs ?? 30 * SECOND_MS,
      ).unref();
      try {
        await (await started).close();
        await tracing?.close();
        log.info('closed');
        end(code);
      } catch (error) {
        log.error({ error }, 'close failed');
        end(exitCodes.failed);
      }
    })());

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (closing) end(exitCodes.failed);
      void close(signal, exitCodes.ok);
    });
  }
  for (const event of ['unhandledRejection', 'uncaughtException'] as const) {
    process.on(event, (error: unknown) => {
      log.fatal({ error }, event);
      void close(event, exitCodes.failed);
    });
  }
  return started.then(
    () => log.info('started'),
    (error: unknown) => {
      if (error instanceof ConfigError) {
        process.stderr.write(`${service}: ${error.message}\n`);
        end(exitCodes.config);
      }
      log.fatal({ error }, 'start failed');
      end(exitCodes.failed);
    },
  );
}
