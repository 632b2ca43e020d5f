/** Postgres cuts longer ones off (NAMEDATALEN - 1 bytes). */
const MAX_BYTES = 63;
const TRACE_DIGITS = 16;
const ORG_DIGITS = 32;
const MAX_SERVICE = MAX_BYTES - ORG_DIGITS - TRACE_DIGITS - 2;

/**
 * What pg_stat_activity and the server's log show of a connection: `mad-results 01a1fde017b0731fa1576c2405e6b993`, and
 * inside a transaction the first half of the trace's id behind it, as access logs have it.
 */
export function applicationName(service: string, orgId: string, traceId?: string): string {
  // One byte a character, and nothing that needs quoting.
  const name = service.replaceAll(/[^\w.-]/g, '_').slice(0, MAX_SERVICE);
  const base = `${name} ${orgId.replaceAll('-', '')}`;
  return traceId === undefined ? base : `${base} ${traceId.slice(0, TRACE_DIGITS)}`;
}
