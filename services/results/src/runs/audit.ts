import { createHash } from 'node:crypto';
import type { TenantTx } from '@mad/tenancy';
import { auditText, NO_HASH, type AuditEntry } from '../domain/audit-chain.ts';
import type { AuditRow } from '../db/entities/audit.ts';

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

/**
 * Adds a line to the tenant's audit log, chained to the one before. Takes a lock that every such transaction waits for,
 * so it comes last.
 */
export async function appendAudit(tx: TenantTx, what: Omit<AuditEntry, 'seq' | 'ts'>): Promise<void> {
  await tx.query(`SELECT pg_advisory_xact_lock(hashtext('mad.audit_log'))`);
  const [last] = await tx.query<{ seq: number; hash: string }>(
    'SELECT seq, hash FROM audit_log ORDER BY seq DESC LIMIT 1',
  );
  const entry: AuditEntry = { ...what, seq: (last?.seq ?? 0) + 1, ts: new Date().toISOString() };
  const prevHash = last?.hash ?? NO_HASH;
  await tx.execute(
    `INSERT INTO audit_log (seq, ts, user_id, action, job_id, outcome, metadata, prev_hash, hash)
      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
    [
      entry.seq,
      entry.ts,
      entry.userId,
      entry.action,
      entry.jobId,
      entry.outcome,
      JSON.stringify(entry.metadata),
      prevHash,
      sha256(auditText(prevHash, entry)),
    ],
  );
}

/** The first line that is not what its hash says, or undefined when the whole log is sound. */
export function firstBrokenLine(rows: readonly AuditRow[]): number | undefined {
  let prevHash = NO_HASH;
  for (const [index, row] of rows.entries()) {
    const { seq, user_id: userId, action, job_id: jobId, outcome } = row;
    const metadata = row.metadata as AuditEntry['metadata'];
    const entry: AuditEntry = { seq, ts: row.ts.toISOString(), userId, action, jobId, outcome, metadata };
    const sound = row.prev_hash === prevHash && row.hash === sha256(auditText(prevHash, entry));
    if (seq !== index + 1 || !sound) return seq;
    prevHash = row.hash;
  }
  return undefined;
}
