import { Code, ConnectError } from '@connectrpc/connect';
import { CommanderError } from 'commander';
import { reasonOf, violationsOf } from '@mad/rpc';

/** Exit codes of every command: stable, so that scripts may branch on them. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  denied: 4,
  refused: 5,
  unavailable: 6,
} as const;

/** A failure of the command line's own, with its exit code. */
export class CommandFailure extends Error {
  readonly exitCode: number;
  constructor(message: string, exitCode: number = EXIT.failed) {
    super(message);
    this.exitCode = exitCode;
  }
}

const CODES: Partial<Record<Code, number>> = {
  [Code.InvalidArgument]: EXIT.usage,
  [Code.OutOfRange]: EXIT.usage,
  [Code.NotFound]: EXIT.notFound,
  [Code.PermissionDenied]: EXIT.denied,
  [Code.Unauthenticated]: EXIT.denied,
  [Code.AlreadyExists]: EXIT.refused,
  [Code.FailedPrecondition]: EXIT.refused,
  [Code.ResourceExhausted]: EXIT.refused,
  [Code.Aborted]: EXIT.refused,
  [Code.Unavailable]: EXIT.unavailable,
  [Code.DeadlineExceeded]: EXIT.unavailable,
};

/** What a failure says, for people and for programs. */
export interface FailureReport {
  error: string;
  code: string;
  reason?: string;
  fields?: { field: string; description: string }[];
  exitCode: number;
}

/** Reads a failure of any kind. */
export function reportOf(error: unknown): FailureReport {
  if (error instanceof CommanderError)
    return { error: error.message, code: 'USAGE', exitCode: error.exitCode && EXIT.usage };
  if (error instanceof CommandFailure) return { error: error.message, code: 'FAILED', exitCode: error.exitCode };
  if (!(error instanceof ConnectError)) {
    const message = error instanceof Error ? error.message : String(error);
    return { error: message, code: 'FAILED', exitCode: EXIT.failed };
  }
  const fields = violationsOf(error);
  const reason = reasonOf(error);
  return {
    error: error.rawMessage,
    code: Code[error.code].replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase(),
    ...(reason === undefined ? {} : { reason }),
    ...(fields.length === 0 ? {} : { fields }),
    exitCode: CODES[error.code] ?? EXIT.failed,
  };
}

/** Says what went wrong on stderr and sets the exit code; with --json one JSON line says it. */
export function failWith(error: unknown, json: boolean): void {
  const report = reportOf(error);
  process.exitCode = report.exitCode;
  // Commander has printed its own usage errors, and --help is no error at all.
  if (error instanceof CommanderError) return;
  if (json) process.stderr.write(`${JSON.stringify(report)}\n`);
  else {
    process.stderr.write(`mad: ${report.error}${report.reason ? ` (${report.reason})` : ''}\n`);
    for (const { field, description } of report.fields ?? []) process.stderr.write(`  ${field}: ${description}\n`);
  }
}
