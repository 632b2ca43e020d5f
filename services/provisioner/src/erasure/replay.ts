import type { JsonWebKey } from 'node:crypto';
import type { ObjectStore } from '@mad/object-store';
import type { Statements } from '@mad/postgres';
import { appendChange } from '../provisioning/changes.ts';
import { keepRow, keptRecords } from './records.ts';
import { signatureProblems, type SignedErasure } from './signature.ts';

/**
 * The erasures whose records are in the object store, for a restore of metadata that may be older than they are. Throws when
 * one is not what this installation signed: nothing is erased on a stranger's word.
 */
export async function erasuresToReplay(objects: ObjectStore, trusted: readonly JsonWebKey[]): Promise<SignedErasure[]> {
  const kept = await keptRecords(objects);
  for (const { key, signed } of kept) {
    const [problem] = signatureProblems(signed, trusted);
    if (problem !== undefined) throw new Error(`${key}: ${problem}`);
  }
  return kept.map(({ signed }) => signed);
}

/**
 * Does to restored rows of provisioner what an erasure did before: keys, credentials and backups go, the tenants are
 * tombstones, and the record is known. Repeatable.
 */
export async function replayErasure(tx: Statements, signed: SignedErasure): Promise<void> {
  const { org_id: orgId } = signed.record;
  await tx.execute(
    `UPDATE provisioner.operations SET state = CASE kind WHEN 'erase' THEN 'succeeded' ELSE 'failed' END,
       error = CASE kind WHEN 'erase' THEN '' ELSE 'the organization was erased' END, ended_at = now(), updated_at = now()
     WHERE org_id = $1 AND state = 'running'`,
    [orgId],
  );
  for (const table of [
    'tenant_credentials',
    'data_keys',
    'cleanup_records',
    'tenant_stock',
    'backups',
    'backup_policies',
    'placements',
    'tenant_indexes',
    'migration_runs',
  ]) {
    await tx.execute(`DELETE FROM provisioner.${table} WHERE org_id = $1`, [orgId]);
  }
  await keepRow(tx, signed);
  const tenants = await tx.query<{ schema: string }>(
    `UPDATE provisioner.tenants SET state = 'erased', step = NULL, step_owner = NULL, step_lease_until = NULL,
       generation = generation + 1, updated_at = now()
     WHERE org_id = $1 AND state <> 'erased' RETURNING schema`,
    [orgId],
  );
  for (const { schema } of tenants.sort((a, b) => (a.schema < b.schema ? -1 : 1))) {
    await appendChange(tx, { orgId, schema });
  }
}
