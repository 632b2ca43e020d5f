/** What an audit event says; its place in the chain and its hashes come from the chain. */
export interface AuditEntry {
  auditId: string;
  orgId: string;
  userId: string | null;
  actorKind: 'user' | 'platform' | 'service';
  action: string;
  entityType: string;
  entityId: string;
  pipelineId: string | null;
  jobId: string | null;
  requestId: string | null;
  address: string;
  outcome: string;
  metadata: Record<string, unknown>;
  /** To the millisecond, as the table keeps it. */
  time: Date;
}

/** The organization id of the platform's own events: no organization has it. */
export const PLATFORM_ORG_ID = '00000000-0000-0000-0000-000000000000';

/** JSON with sorted keys: jsonb does not keep their order. */
function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  members.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`).join(',')}}`;
}

/**
 * The text whose hash, after the previous event's hash, is the event's hash: every field the event has, so that
 * changing any of them shows.
 */
export function auditPayload(seq: number, entry: AuditEntry): string {
  return canonicalJson({ ...entry, seq, time: entry.time.toISOString() });
}
