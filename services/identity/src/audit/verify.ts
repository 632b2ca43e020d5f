import type { Tx } from '@mad/postgres';
import type { AuditLogRow } from '../db/entities/audit.ts';
import type { AuditEntry } from '../domain/audit-chain.ts';
import { auditHash, NO_HASH } from './append.ts';

/** Events read at a time: a chain may be long. */
const BATCH = 1_000;

/** What a row says, in the form its hash is made of. */
export function auditEntry(row: AuditLogRow): AuditEntry {
  return {
    auditId: row.audit_id,
    orgId: row.org_id,
    userId: row.user_id,
    actorKind: row.actor_kind,
    action: row.action,
    entityType: row.entity_type,
    entityId: row.entity_id,
    pipelineId: row.pipeline_id,
    jobId: row.job_id,
    requestId: row.request_id,
    address: row.address,
    outcome: row.outcome,
    metadata: row.metadata,
    time: row.ts,
  };
}

/** The columns of an event, without `SELECT *`. */
export const AUDIT_COLUMNS = `audit_id, org_id, seq, user_id, actor_kind, action, entity_type, entity_id, pipeline_id,
  job_id, request_id, address, outcome, metadata, ts, prev_hash, hash`;

/** What a check of a chain found. `brokenSeq` is 0 when the chain is intact. */
export interface ChainCheck {
  checked: number;
  brokenSeq: number;
}

/**
 * Recomputes an organization's chain from its first event. An event that was changed, put in, taken out or moved shows
 * at its place; events cut off the end show against the chain's head. Events appended meanwhile are checked too.
 */
export async function verifyChain(tx: Tx, orgId: string): Promise<ChainCheck> {
  let seq = 0;
  let hash: Buffer = NO_HASH;
  for (;;) {
    const rows = await tx.query<AuditLogRow>(
      `SELECT ${AUDIT_COLUMNS} FROM identity.audit_logs WHERE org_id = $1 AND seq > $2 ORDER BY seq LIMIT ${BATCH}`,
      [orgId, seq],
    );
    for (const row of rows) {
      const expected = auditHash(hash, seq + 1, auditEntry(row));
      if (Number(row.seq) !== seq + 1 || !row.prev_hash.equals(hash) || !row.hash.equals(expected)) {
        return { checked: seq, brokenSeq: seq + 1 };
      }
      seq += 1;
      hash = row.hash;
    }
    if (rows.length === BATCH) continue;
    const head = await headOf(tx, orgId);
    if (head.newest > seq) continue;
    return { checked: seq, brokenSeq: head.seq === seq && head.hash.equals(hash) ? 0 : seq + 1 };
  }
}

/** The chain's head and its newest event, as they stand in the same moment: in one statement. */
async function headOf(tx: Tx, orgId: string): Promise<{ seq: number; hash: Buffer; newest: number }> {
  const [row] = await tx.query<{ last_seq: string; last_hash: Buffer | null; newest: string }>(
    `SELECT coalesce(c.last_seq, 0) AS last_seq, c.last_hash, coalesce(n.newest, 0) AS newest
       FROM (SELECT max(seq) AS newest FROM identity.audit_logs WHERE org_id = $1) n
       LEFT JOIN identity.audit_chains c ON c.org_id = $1`,
    [orgId],
  );
  return { seq: Number(row!.last_seq), hash: row!.last_hash ?? NO_HASH, newest: Number(row!.newest) };
}
