import { notFound } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import type { ExportEntityRow, ExportPartRow } from '../db/entities/export.ts';

export const EXPORT_COLUMNS_SQL = `export_id, job_id, task_id, format, filter, best_per_molecule, state, snapshot_seq, part_rows,
  expected_rows, rows_done, size_bytes, next_hit, lease_owner, lease_until, manifest, error, created_by, created_at, ended_at`;

/** An export that somebody who writes has no right to any more: deleted, or in another process's hands. */
export class ExportLost extends Error {
  override readonly name = 'ExportLost';
}

/** The export of a job. NOT_FOUND when it has none of this id. */
export async function requireExport(tx: TenantTx, jobId: string, exportId: string): Promise<ExportEntityRow> {
  const [row] = await tx.query<ExportEntityRow>(
    `SELECT ${EXPORT_COLUMNS_SQL} FROM exports WHERE export_id = $1 AND job_id = $2`,
    [exportId, jobId],
  );
  if (row === undefined) throw notFound('export', exportId);
  return row;
}

/** What of an export is written, in order. */
export async function readParts(tx: TenantTx, exportId: string): Promise<ExportPartRow[]> {
  return tx.query<ExportPartRow>(
    `SELECT export_id, part_no, object_id, rows, size_bytes, sha256 FROM export_parts WHERE export_id = $1 ORDER BY part_no`,
    [exportId],
  );
}

/** A process may be silent for so long before another one takes its export over. */
const LEASE_S = 30;

/** True when nobody writes an export that ought to be written. */
export function isAbandoned({ state, lease_until: until }: ExportEntityRow, now: number): boolean {
  return state === 'running' && (until === null || until.getTime() < now);
}

/**
 * Takes the export for `owner`; undefined when it has ended, is gone, or somebody else writes it. The part that a process that
 * died was writing is begun anew.
 */
export async function takeExport(tx: TenantTx, exportId: string, owner: string): Promise<ExportEntityRow | undefined> {
  const [row] = await tx.query<ExportEntityRow>(
    `UPDATE exports SET lease_owner = $2, lease_until = now() + make_interval(secs => ${LEASE_S})
      WHERE export_id = $1 AND state = 'running' AND (lease_until IS NULL OR lease_until < now())
      RETURNING ${EXPORT_COLUMNS_SQL}`,
    [exportId, owner],
  );
  return row;
}

/** Says that the owner still writes, and what. Throws ExportLost. */
export async function renewLease(tx: TenantTx, exportId: string, owner: string, objectId?: string): Promise<void> {
  const renewed = await tx.execute(
    `UPDATE exports SET lease_until = now() + make_interval(secs => ${LEASE_S})
      WHERE export_id = $1 AND lease_owner = $2 AND state = 'running'`,
    [exportId, owner],
  );
  if (renewed === 0) throw new ExportLost(`export ${exportId} is no longer this process's`);
  if (objectId !== undefined) {
    await tx.execute(`UPDATE stored_objects SET created_at = now() WHERE object_id = $1 AND state = 'writing'`, [
      objectId,
    ]);
  }
}

/** Lets go of an export that is not finished, so that the next process need not wait for the lease to end. */
export async function leaveExport(tx: TenantTx, exportId: string, owner: string): Promise<void> {
  await tx.execute(
    `UPDATE exports SET lease_owner = NULL, lease_until = NULL WHERE export_id = $1 AND lease_owner = $2`,
    [exportId, owner],
  );
}

/** Notes a part that is written whole, and where the next one goes on. Throws ExportLost. */
export async function addPart(
  tx: TenantTx,
  owner: string,
  part: ExportPartRow,
  next: ExportEntityRow['next_hit'],
): Promise<void> {
  const { export_id: id, part_no: partNo, object_id: objectId, rows, size_bytes: size, sha256 } = part;
  const taken = await tx.execute(
    `UPDATE exports SET rows_done = rows_done + $3, size_bytes = size_bytes + $4, next_hit = $5,
        lease_until = now() + make_interval(secs => ${LEASE_S})
      WHERE export_id = $1 AND lease_owner = $2 AND state = 'running'`,
    [id, owner, rows, size, next === null ? null : JSON.stringify(next)],
  );
  if (taken === 0) throw new ExportLost(`export ${id} is no longer this process's`);
  await tx.execute(
    `INSERT INTO export_parts (export_id, part_no, object_id, rows, size_bytes, sha256) VALUES ($1, $2, $3, $4, $5, $6)`,
    [id, partNo, objectId, rows, size, sha256],
  );
}

/** Ends an export: whole with its manifest, or failed with the reason. Throws ExportLost. */
export async function endExport(
  tx: TenantTx,
  exportId: string,
  owner: string,
  ending: { manifest: object } | { error: string },
): Promise<void> {
  const [state, manifest, error] =
    'manifest' in ending ? ['completed', JSON.stringify(ending.manifest), ''] : ['failed', null, ending.error];
  const ended = await tx.execute(
    `UPDATE exports SET state = $3, manifest = $4, error = $5, ended_at = now(), lease_owner = NULL, lease_until = NULL
      WHERE export_id = $1 AND lease_owner = $2 AND state = 'running'`,
    [exportId, owner, state, manifest, error],
  );
  if (ended === 0) throw new ExportLost(`export ${exportId} is no longer this process's`);
}
