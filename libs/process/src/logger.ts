import { pino, type DestinationStream, type Logger as PinoLogger } from 'pino';
import { currentSpan } from './tracing/span.ts';

/** Structured log: `log.info({ org_id }, 'message')` writes one JSON line. */
export type Logger = PinoLogger;

/** Levels a log may be set to. */
export const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;

/** Least severe level that is written. */
export type LogLevel = (typeof LOG_LEVELS)[number];

/** How to log. */
export interface LoggerOptions {
  /** Default `info`. */
  level?: LogLevel;
  /** Where lines go: default standard output. */
  destination?: DestinationStream;
}

/** Keys whose values are credentials: a line never carries them, whoever logged the object. Compared without case, `_` and `-`. */
const secretKeys = new Set([
  'accesstoken',
  'apikey',
  'authorization',
  'cookie',
  'dek',
  'hashedpassword',
  'jwt',
  'masterkey',
  'password',
  'privatejwk',
  'privatekey',
  'refreshtoken',
  'secret',
  'servicetoken',
  'token',
]);

const isSecret = (key: string): boolean =>
  secretKeys.has(key) || secretKeys.has(key.toLowerCase().replace(/[_-]/g, ''));

/** Replaces credentials at the top level and one below; deeper objects are not logged in this house. */
function withoutSecrets(fields: Record<string, unknown>): Record<string, unknown> {
  let clean = fields;
  for (const key in fields) {
    const value = fields[key];
    let replacement = value;
    if (isSecret(key)) replacement = '[redacted]';
    else if (isPlainObject(value)) replacement = withoutSecrets(value);
    if (replacement === value) continue;
    if (clean === fields) clean = { ...fields };
    clean[key] = replacement;
  }
  return clean;
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}

/** An error as logged: what it is, where, and why, without the descriptors and sockets that hang on some errors. */
export interface LoggedError {
  code?: unknown;
  message: string;
  stack?: string;
  cause?: LoggedError;
}

const MAX_CAUSES = 4;

/** pg-boss tells its errors as copies, which are no instances of Error. */
const isErrorLike = (value: unknown): value is Error =>
  typeof value === 'object' && value !== null && typeof (value as Partial<Error>).message === 'string';

/** Reduces any thrown value to what a log line may hold. Follows `cause` four deep. */
export function loggedError(error: unknown, depth = 0): LoggedError {
  if (!isErrorLike(error)) return { message: String(error) };
  const { code, cause } = error as Error & { code?: unknown };
  return {
    ...(code === undefined ? {} : { code }),
    message: error.message,
    stack: error.stack,
    ...(cause === undefined || depth >= MAX_CAUSES ? {} : { cause: loggedError(cause, depth + 1) }),
  };
}

/**
 * The log of one service: JSON lines with `time` (ISO 8601), `level`, `service`, `msg` and, inside a trace, `trace_id` and `span_id`.
 * Errors go under `error` (or `err`); values under keys that name credentials are replaced.
 */
export function createLogger(service: string, options: LoggerOptions = {}): Logger {
  const settings = {
    level: options.level ?? 'info',
    base: { service },
    timestamp: pino.stdTimeFunctions.isoTime,
    serializers: { error: loggedError, err: loggedError },
    mixin: () => {
      const span = currentSpan();
      return span === undefined ? {} : { trace_id: span.traceId, span_id: span.spanId };
    },
    formatters: { level: (label: string) => ({ level: label }), log: withoutSecrets },
  };
  return options.destination === undefined ? pino(settings) : pino(settings, options.destination);
}
