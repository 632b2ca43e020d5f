import type { ObjectStore } from '@mad/object-store';
import type { Database, Tx } from '@mad/postgres';
import type { BackupRow } from '../db/entities/backup.ts';
import { conflict, lockBackup } from './begin.ts';

/**
 * Notes that a backup is to go; from then on nothing is begun with it. Throws NOT_FOUND, and FAILED_PRECONDITION while
 * something is done with it.
 */
export async function withdraw(tx: Tx, backupId: string): Promise<BackupRow> {
  const backup = await lockBackup(tx, backupId);
  const used = await tx.execute(
    `SELECT FROM provisioner.operations WHERE state = 'running' AND params ->> 'backup_id' = $1`,
    [backupId],
  );
  if (used > 0) throw conflict(backupId, 'something is being done with it');
  await tx.execute('UPDATE provisioner.backups SET deleting_at = coalesce(deleting_at, now()) WHERE backup_id = $1', [
    backupId,
  ]);
  return backup;
}

/** Removes the archives of withdrawn backups, then their rows: what a crash interrupts is found again. */
export async function removeWithdrawn(
  { database, objects }: { database: Database; objects: ObjectStore },
  backupId?: string,
): Promise<void> {
  const rows = await database.asSystem((tx) =>
    tx.query<{ backup_id: string; object_key: string }>(
      `SELECT backup_id, object_key FROM provisioner.backups
       WHERE deleting_at IS NOT NULL AND ($1::uuid IS NULL OR backup_id = $1) ORDER BY deleting_at LIMIT 1000`,
      [backupId ?? null],
    ),
  );
  for (const { backup_id: id, object_key: objectKey } of rows) {
    if (objectKey !== '') await objects.delete(objectKey);
    await database.asSystem((tx) => tx.execute('DELETE FROM provisioner.backups WHERE backup_id = $1', [id]));
  }
}
