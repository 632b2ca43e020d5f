import type { JsonObject, JsonValue } from '@bufbuild/protobuf';

/** What was erased of an organization, how much of it, when, and at whose request. */
export interface ErasureRecord {
  erasure_id: string;
  org_id: string;
  /** What it was called; another may be called so since. */
  slug: string;
  operation_id: string;
  requested_by: string;
  /** ISO 8601. */
  requested_at: string;
  /** ISO 8601. */
  erased_at: string;
  /** Dropped, as "server/name". */
  databases: string[];
  roles: string[];
  /** Deleted from the object store. */
  objects: number;
  backups: number;
  /** Data keys that were destroyed, each a version. */
  keys: number;
  /** Rows removed by each owner, by table. */
  rows: Record<string, Record<string, number>>;
}

/** The text that is hashed and signed: JSON with sorted keys, so that everybody makes the same of a record. */
export function recordText(record: ErasureRecord): string {
  return canonicalJson(record as unknown as JsonObject);
}

function canonicalJson(value: JsonValue): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`).join(',')}}`;
}
