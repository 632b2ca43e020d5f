import type { Trace } from '@mad/process';

/** Postgres cuts longer names (NAMEDATALEN - 1 bytes). */
const MAX_BYTES = 63;
const ORG_DIGITS = 32;
/** Enough of a trace's id to find it: `mad logs --trace` takes a beginning. */
const TRACE_DIGITS = 12;
const MAX_PROGRAM = MAX_BYTES - ORG_DIGITS - TRACE_DIGITS - 2;

/**
 * What a session calls itself while it works for somebody: `<program>/<organization>/<trace>`, the organization without
 * dashes, the first digits of the trace. Either may be missing. Nothing in it needs quoting.
 */
export function applicationName(program: string, orgId: string | undefined, trace: Trace | undefined): string {
  // One byte a character, so that characters count what Postgres counts.
  const name = program.replaceAll(/[^\w.-]/g, '_');
  if (orgId === undefined && trace === undefined) return name.slice(0, MAX_BYTES);
  const organization = orgId?.replaceAll('-', '') ?? '';
  return `${name.slice(0, MAX_PROGRAM)}/${organization}/${trace?.traceId.slice(0, TRACE_DIGITS) ?? ''}`;
}
