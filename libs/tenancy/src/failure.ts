import { types } from 'node:util';
import { Code } from '@connectrpc/connect';
import type { Reason } from '@mad/rpc';

/** What can go wrong between a request and an organization's database. */
export type FailureKind =
  'crowded' | 'limited' | 'starting' | 'login' | 'database_gone' | 'network' | 'ended' | 'read_only' | 'untrusted';

/** What a kind of failure means for everything that has to do with it. */
export interface Failure {
  kind: FailureKind;
  means: string;
  /** `keep`: still right. `ask`: asked for again before its next use. `repeat`: asked for at once, the request repeated once. */
  route: 'keep' | 'ask' | 'repeat';
  /** `none`: none was opened. `close`: the one it happened on. `close_idle`: and the tenant's idle ones, which lead the same way. */
  connection: 'none' | 'close' | 'close_idle';
  /** Whether a connection that could not be opened for it counts against the server (see CircuitBreaker). */
  breaker: boolean;
  /** What the caller is told, unless the tenant's state says more. */
  code: Code;
  reason: Reason;
}

const unavailable = { code: Code.Unavailable, reason: 'DATABASE_UNAVAILABLE' } as const;
const exhausted = { code: Code.ResourceExhausted, reason: 'CONNECTION_BUDGET_EXHAUSTED' } as const;

/** The one place that says what each failure means. */
export const FAILURES: Readonly<Record<FailureKind, Omit<Failure, 'kind'>>> = {
  crowded: {
    means: 'the server has no connection left for us',
    route: 'keep',
    connection: 'none',
    breaker: true,
    ...exhausted,
  },
  limited: {
    means: "the database's or the login's own limit of connections is reached",
    route: 'keep',
    connection: 'none',
    breaker: false,
    ...exhausted,
  },
  starting: {
    means: 'the server is starting, recovering or shutting down',
    route: 'keep',
    connection: 'close',
    breaker: true,
    ...unavailable,
  },
  login: {
    means: 'the password changed, or the tenant is fenced: the route is old',
    route: 'repeat',
    connection: 'none',
    breaker: false,
    ...unavailable,
  },
  database_gone: {
    means: 'the database is not on this server: moved, renamed or erased',
    route: 'repeat',
    connection: 'none',
    breaker: false,
    ...unavailable,
  },
  network: {
    means: 'refused, reset, unreachable or too slow to answer',
    route: 'ask',
    connection: 'close',
    breaker: true,
    ...unavailable,
  },
  ended: {
    means: 'an administrator ended the session, a crash of another or the time limit did: a fence, a move, a restart',
    route: 'ask',
    connection: 'close',
    breaker: false,
    ...unavailable,
  },
  read_only: {
    means: 'the server is a standby: it lost its role, and the tenant is elsewhere',
    route: 'repeat',
    connection: 'close_idle',
    breaker: false,
    ...unavailable,
  },
  untrusted: {
    means: 'the certificate or the encryption of the server is not what the route asks for',
    route: 'ask',
    connection: 'none',
    breaker: false,
    ...unavailable,
  },
};

/** SQLSTATEs (PostgreSQL documentation, appendix "Error Codes") and what Node says of a socket. */
const KIND_OF_CODE: Readonly<Record<string, FailureKind>> = {
  '53300': 'crowded',
  '57P03': 'starting',
  '28P01': 'login',
  '28000': 'login',
  '3D000': 'database_gone',
  // A transaction in which nobody said anything for too long: this process stood still.
  '25P03': 'ended',
  '57P01': 'ended',
  '57P02': 'ended',
  '57P05': 'ended',
  '25006': 'read_only',
  ECONNREFUSED: 'network',
  ECONNRESET: 'network',
  EPIPE: 'network',
  ETIMEDOUT: 'network',
  EHOSTUNREACH: 'network',
  ENETUNREACH: 'network',
  ENOTFOUND: 'network',
  EAI_AGAIN: 'network',
};

/** Where it happened: while a connection was made, or to a statement on it. */
export type Stage = 'connect' | 'read' | 'transact';

/** Kinds a statement can meet; the others would be about somebody else's connection (dblink) or a bug. */
const OF_STATEMENTS: ReadonlySet<FailureKind> = new Set(['starting', 'network', 'ended', 'read_only']);

/** pg and its pool report these without a code. */
const NETWORK_MESSAGE =
  /^(Connection terminated|timeout expired|timeout exceeded when trying to connect|Client has encountered a connection error|Client was closed)/;
const UNTRUSTED = /^(ERR_TLS_|ERR_SSL_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/;

/** The failure an error stands for; undefined for all that is about the statement and not about the way to the database. */
export function failureOf(error: unknown, stage: Stage): Failure | undefined {
  const kind = kindOf(error, stage);
  if (kind === undefined || (stage !== 'connect' && !OF_STATEMENTS.has(kind))) return undefined;
  // A read refuses to write by itself.
  if (kind === 'read_only' && stage === 'read') return undefined;
  return { kind, ...FAILURES[kind] };
}

function kindOf(error: unknown, stage: Stage): FailureKind | undefined {
  // Not `instanceof`: errors of sockets may come from another realm (Jest's tests have one of their own).
  if (!types.isNativeError(error)) return undefined;
  if (error instanceof ConnectTimedOut) return 'network';
  const { driverError } = error as { driverError?: unknown };
  const cause: Error & { code?: unknown } = types.isNativeError(driverError) ? driverError : error;
  const { message } = cause;
  const code = typeof cause.code === 'string' ? cause.code : '';
  if (code === '53300' && /^too many connections for (role|database) /.test(message)) return 'limited';
  // CONNECT was taken away; ALLOW_CONNECTIONS is false.
  if (stage === 'connect' && code === '42501' && message.includes('for database')) return 'login';
  if (stage === 'connect' && code === '55000' && message.includes('accepting connections')) return 'login';
  // What a standby answers to BEGIN READ WRITE.
  if (code === '0A000' && message.includes('during recovery')) return 'read_only';
  const known = KIND_OF_CODE[code];
  if (known !== undefined) return known;
  if (code.startsWith('08') || NETWORK_MESSAGE.test(message)) return 'network';
  if (UNTRUSTED.test(code) || message.startsWith('The server does not support SSL')) return 'untrusted';
  return undefined;
}

/** The caller's time ran out while a connection was being opened for it: the server is slow, not the house full. */
export class ConnectTimedOut extends Error {
  override readonly name = 'ConnectTimedOut';

  constructor(waitedMs: number) {
    super(`the server did not open a connection within ${Math.round(waitedMs)} ms`);
  }
}
