import type { Database, Tx } from '@mad/postgres';
import type { BackupRow } from '../db/entities/backup.ts';
import { lockHeld, type Held } from '../operations/lease.ts';
import { noteDataKey, type DataKey, type PreparedKey } from '../secrets/data-keys.ts';
import type { MasterKeys } from '../secrets/master-keys.ts';
import type { Written } from './archive-writer.ts';

/** Every column of a BackupRow, for queries. */
export const BACKUP_COLUMNS = `b.backup_id, b.org_id, b.schema, b.operation_id, b.scheduled, b.object_key, b.completed_at,
  b.snapshot_at, b.generation, b.schema_version, b.row_count, b.raw_bytes, b.size_bytes, b.sha256, b.tables,
  b.verified_at, b.verify_error, b.tried_at, b.deleting_at, b.created_at`;

/** Throws when there is none. */
export async function findBackup(database: Database, backupId: string): Promise<BackupRow> {
  const [row] = await database.asSystem((tx) =>
    tx.query<BackupRow>(`SELECT ${BACKUP_COLUMNS} FROM provisioner.backups b WHERE b.backup_id = $1`, [backupId]),
  );
  if (row === undefined) throw new Error(`there is no backup ${backupId}`);
  return row;
}

/** Notes where the archive will be, before it is begun. Returns the organization's key to seal it under. */
export async function noteKey(
  tx: Tx,
  master: MasterKeys,
  held: Held,
  prepared: PreparedKey,
  backupId: string,
  objectKey: string,
): Promise<DataKey> {
  await lockHeld(tx, held);
  await tx.execute('UPDATE provisioner.backups SET object_key = $2 WHERE backup_id = $1', [backupId, objectKey]);
  return noteDataKey(tx, master, prepared);
}

/** The archive is whole and on the disk. */
export async function completeBackup(
  tx: Pick<Tx, 'execute'>,
  backupId: string,
  { manifest, sizeBytes, sha256 }: Written,
): Promise<void> {
  const sum = (of: (table: (typeof manifest.tables)[number]) => number): number =>
    manifest.tables.reduce((total, table) => total + of(table), 0);
  const tables = manifest.tables.map(({ columns: _columns, partition_of: _of, bound: _bound, ...totals }) => totals);
  await tx.execute(
    `UPDATE provisioner.backups SET completed_at = now(), snapshot_at = $2, generation = $3, schema_version = $4,
       row_count = $5, raw_bytes = $6, size_bytes = $7, sha256 = $8, tables = $9
     WHERE backup_id = $1`,
    [
      backupId,
      manifest.snapshot_at,
      manifest.generation,
      manifest.schemas[0]?.version ?? '',
      sum(({ rows }) => rows),
      sum(({ raw_bytes: bytes }) => bytes),
      sizeBytes,
      sha256,
      JSON.stringify(tables),
    ],
  );
}

/** Notes how trying to restore it went; empty when well. */
export async function noteTry(tx: Tx, backupId: string, error: string): Promise<void> {
  await tx.execute(
    `UPDATE provisioner.backups SET verify_error = $2, tried_at = now(),
       verified_at = CASE $2 WHEN '' THEN now() ELSE verified_at END
     WHERE backup_id = $1`,
    [backupId, error],
  );
}
