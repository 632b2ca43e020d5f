import { createHash } from 'node:crypto';
import type { Tx } from '@mad/postgres';
import { auditPayload, type AuditEntry } from '../domain/audit-chain.ts';

/** The hash before the first event. */
export const NO_HASH: Buffer = Buffer.alloc(32);

/** SHA-256 of the previous event's hash and the event's canonical form. */
export function auditHash(previous: Uint8Array, seq: number, entry: AuditEntry): Buffer {
  return createHash('sha256').update(previous).update(auditPayload(seq, entry)).digest();
}

/**
 * Appends events to one organization's chain, in the caller's transaction; the chain stays locked until it ends, so
 * append last. An `auditId` that the chain has already is left out. Returns how many were new.
 */
export async function appendAudit(
  tx: Pick<Tx, 'query' | 'execute'>,
  orgId: string,
  entries: readonly AuditEntry[],
): Promise<number> {
  // Writing the head unchanged locks it, and makes it for a new organization.
  const [head] = await tx.query<{ last_seq: string; last_hash: Buffer }>(
    `INSERT INTO identity.audit_chains AS c (org_id, last_hash) VALUES ($1, $2)
     ON CONFLICT (org_id) DO UPDATE SET last_seq = c.last_seq RETURNING last_seq, last_hash`,
    [orgId, NO_HASH],
  );
  const known = await tx.query<{ audit_id: string }>(
    'SELECT audit_id FROM identity.audit_logs WHERE org_id = $1 AND audit_id = ANY ($2)',
    [orgId, entries.map(({ auditId }) => auditId)],
  );
  const seen = new Set(known.map(({ audit_id }) => audit_id));
  const rows: { entry: AuditEntry; seq: number; prev: Buffer; hash: Buffer }[] = [];
  let seq = Number(head!.last_seq);
  let hash = head!.last_hash;
  for (const entry of entries) {
    if (seen.has(entry.auditId)) continue;
    seen.add(entry.auditId);
    const prev = hash;
    seq += 1;
    hash = auditHash(prev, seq, entry);
    rows.push({ entry, seq, prev, hash });
  }
  if (rows.length === 0) return 0;
  const of = <V>(read: (row: (typeof rows)[number]) => V): V[] => rows.map(read);
  await tx.execute(
    `INSERT INTO identity.audit_logs (org_id, audit_id, seq, user_id, actor_kind, action, entity_type, entity_id,
       pipeline_id, job_id, request_id, address, outcome, metadata, ts, prev_hash, hash)
     SELECT $1, * FROM unnest($2::uuid[], $3::bigint[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[],
       $9::uuid[], $10::uuid[], $11::uuid[], $12::text[], $13::text[], $14::jsonb[], $15::timestamptz[], $16::bytea[],
       $17::bytea[])`,
    [
      orgId,
      of(({ entry }) => entry.auditId),
      of((row) => row.seq),
      of(({ entry }) => entry.userId),
      of(({ entry }) => entry.actorKind),
      of(({ entry }) => entry.action),
      of(({ entry }) => entry.entityType),
      of(({ entry }) => entry.entityId),
      of(({ entry }) => entry.pipelineId),
      of(({ entry }) => entry.jobId),
      of(({ entry }) => entry.requestId),
      of(({ entry }) => entry.address),
      of(({ entry }) => entry.outcome),
      of(({ entry }) => JSON.stringify(entry.metadata)),
      of(({ entry }) => entry.time.toISOString()),
      of((row) => row.prev),
      of((row) => row.hash),
    ],
  );
  await tx.execute('UPDATE identity.audit_chains SET last_seq = $2, last_hash = $3 WHERE org_id = $1', [
    orgId,
    seq,
    hash,
  ]);
  return rows.length;
}
