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
export { createMetrics, mergedMetricsText, type Metrics } from './metrics.ts';
export { exitCodes, runMain, type RunMainOptions, type Running } from './run-main.ts';
export { sleep } from './sleep.ts';
