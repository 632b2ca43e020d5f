import type { JsonObject } from '@bufbuild/protobuf';

/** What one line of the tenant's audit log says. */
export interface AuditEntry {
  seq: number;
  /** ISO 8601, milliseconds, UTC. */
  ts: string;
  /** Empty when the system acted. */
  userId: string;
  action: string;
  jobId: string;
  outcome: string;
  metadata: JsonObject;
}

/** The hash before the first line. */
export const NO_HASH = '0'.repeat(64);

/**
 * The text whose sha256 is the line's hash. It holds the hash of the line before, so a line changed or taken out breaks
 * every later one.
 */
export function auditText(prevHash: string, entry: AuditEntry): string {
  const { seq, ts, userId, action, jobId, outcome, metadata } = entry;
  return JSON.stringify([prevHash, seq, ts, userId, action, jobId, outcome, sorted(metadata)]);
}

/** jsonb does not keep the order of keys. */
function sorted(value: unknown): unknown {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map(sorted);
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, inner]) => [key, sorted(inner)]));
}
