import { types } from 'node:util';
import { Code, ConnectError, type Interceptor } from '@connectrpc/connect';
import { SECOND_MS } from '@mad/process';
import { invalid, rpcError } from '@mad/rpc';

const { isNativeError } = types;

/** What to tell about a broken constraint, by its name: the field of the request, and what is wrong with it. */
export type ConstraintMessages = Readonly<Record<string, readonly [field: string, description: string]>>;

const RETRY_SOON_MS = SECOND_MS / 10;
const RETRY_LATER_MS = SECOND_MS;

/** What Postgres says of an error (documentation, "Error and Notice Message Fields"), as pg and TypeORM hand it on. */
interface PostgresError {
  code?: string;
  message: string;
  constraint?: string;
  column?: string;
  detail?: string;
  table?: string;
}

function postgresError(error: unknown): PostgresError | undefined {
  if (!isNativeError(error) || error instanceof ConnectError) return undefined;
  const inner = (error as { driverError?: unknown }).driverError;
  return isNativeError(inner) ? inner : error;
}

/**
 * The column a broken constraint is about: the last one of its key, since keys begin with the organization. Postgres
 * tells the key's columns only where no row-level security applies; else the constraint's name has to do
 * (`notes_org_id_title_key` of `notes`, or of its partition `notes_3`, is about `title`).
 */
function fieldOf({ column, detail, constraint = '', table = '' }: PostgresError): string {
  const keyed = /^Key \(([^)]+)\)/.exec(detail ?? '')?.[1];
  const told = column ?? keyed?.split(',').at(-1)?.trim();
  if (told !== undefined) return told;
  const parent = table.replace(/_p?\d+$/, '');
  const rule = constraint.startsWith(`${parent}_`) ? constraint.slice(parent.length + 1) : constraint;
  return rule.replace(/^org_id_(?=.*_(key|idx)$)/, '').replace(/_(check|key|fkey|idx)$/, '');
}

function violation(error: PostgresError, cause: unknown, constraints: ConstraintMessages): ConnectError {
  const known = constraints[error.constraint ?? ''];
  const field = known?.[0] ?? fieldOf(error);
  const say = (fallback: string): string => known?.[1] ?? fallback;
  let answer: ConnectError;
  if (error.code === '23505') {
    const description = say('is already taken');
    answer = rpcError(Code.AlreadyExists, 'ALREADY_EXISTS', `${field}: ${description}`, { field });
  } else if (error.code === '23503' && error.message.startsWith('update or delete')) {
    answer = rpcError(Code.FailedPrecondition, 'IN_USE', `${field}: ${say('is in use')}`, { field });
  } else if (error.code === '23503') {
    answer = invalid(field, say('does not exist'));
  } else {
    answer = invalid(field, say(error.code === '23502' ? 'is required' : 'is not allowed'));
  }
  answer.cause = cause;
  return answer;
}

const CONNECTION_LOST = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN']);
/** pg reports these two without a code. */
const CONNECTION_LOST_MESSAGE = /^(Connection terminated|timeout exceeded when trying to connect)/;

function unavailable(cause: unknown, why = 'the database is not available'): ConnectError {
  const options = { cause, retryAfterMs: RETRY_LATER_MS };
  return rpcError(Code.Unavailable, 'DATABASE_UNAVAILABLE', why, {}, options);
}

/**
 * What a caller is told about an error of Postgres, or undefined when the error is none or is a bug of ours (a syntax
 * error, a row-level security violation): those stay internal. Values the caller sent that a constraint refused name
 * the field; conflicts, overload and lost connections say when to try again.
 */
export function pgErrorToRpc(error: unknown, constraints: ConstraintMessages = {}): ConnectError | undefined {
  const cause = postgresError(error);
  if (cause === undefined) return undefined;
  const code = cause.code ?? '';
  if (['23502', '23503', '23505', '23514', '23P01'].includes(code)) return violation(cause, error, constraints);
  // Malformed, too long, out of range, not text: no input of ours should get this far, but it is the caller's value.
  if (['22P02', '22001', '22003', '22007', '22008', '22021', '22P05'].includes(code)) {
    const answer = invalid(fieldOf(cause), 'is not a value the database accepts');
    answer.cause = error;
    return answer;
  }
  if (['40001', '40P01', '55P03'].includes(code)) {
    const options = { cause: error, retryAfterMs: RETRY_SOON_MS };
    return rpcError(Code.Aborted, 'STATE_CONFLICT', 'another change was under way: try again', {}, options);
  }
  if (code === '57014') {
    return new ConnectError('the database took too long', Code.DeadlineExceeded, undefined, undefined, error);
  }
  if (code === '53300') {
    const options = { cause: error, retryAfterMs: RETRY_LATER_MS };
    return rpcError(Code.ResourceExhausted, 'CONNECTION_BUDGET_EXHAUSTED', 'too many connections', {}, options);
  }
  if (code === '53100') return unavailable(error, "the disk of the database's server is full");
  const lost = /^(08|53|57P0)/.test(code) || CONNECTION_LOST.has(code) || CONNECTION_LOST_MESSAGE.test(cause.message);
  return lost ? unavailable(error) : undefined;
}

/** Server interceptor: errors of Postgres that a handler lets through reach the caller as `pgErrorToRpc` words them. */
export function postgresErrorInterceptor(constraints: ConstraintMessages = {}): Interceptor {
  const translated = (error: unknown): unknown => pgErrorToRpc(error, constraints) ?? error;
  async function* guarded<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* messages;
    } catch (error) {
      throw translated(error);
    }
  }
  return (next) => async (request) => {
    try {
      const response = await next(request);
      return response.stream ? { ...response, message: guarded(response.message) } : response;
    } catch (error) {
      throw translated(error);
    }
  };
}
