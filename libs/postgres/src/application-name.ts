import type { Trace } from '@mad/process';

/** Postgres cuts longer names. */
const MAX_LENGTH = 63;
/** Enough of a trace's id to find it: `mad logs --trace` takes a beginning. */
const TRACE_DIGITS = 12;

/**
 * What a session calls itself while it works for somebody: `<program>/<organization>/<trace>`, the organization without
 * dashes, the first digits of the trace. Either may be missing.
 */
export function applicationName(program: string, orgId: string | undefined, trace: Trace | undefined): string {
  if (orgId === undefined && trace === undefined) return program;
  const organization = orgId?.replaceAll('-', '') ?? '';
  return `${program}/${organization}/${trace?.traceId.slice(0, TRACE_DIGITS) ?? ''}`.slice(0, MAX_LENGTH);
}
