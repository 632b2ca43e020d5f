import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { BackupSchema, BackupState, BackupTableSchema, type Backup } from '@mad/proto/provisioner';
import type { BackupRow } from '../db/entities/backup.ts';
import type { OperationState } from '../db/entities/operation.ts';

/** A backup with the state of the operation that makes it. */
export type BackupWithState = BackupRow & { operation_state: OperationState };

function stateOf({
  completed_at: completed,
  deleting_at: deleting,
  operation_state: state,
}: BackupWithState): BackupState {
  if (deleting !== null) return BackupState.DELETING;
  if (completed !== null) return BackupState.READY;
  return state === 'running' ? BackupState.CREATING : BackupState.FAILED;
}

const timeOf = (at: Date | null) => (at === null ? undefined : timestampFromDate(at));

/** The row as the API shows it, with its tables or without. */
export function backupMessage(row: BackupWithState, { tables }: { tables: boolean }): Backup {
  return create(BackupSchema, {
    backupId: row.backup_id,
    orgId: row.org_id,
    schema: row.schema,
    state: stateOf(row),
    operationId: row.operation_id,
    snapshotTime: timeOf(row.snapshot_at),
    generation: BigInt(row.generation),
    schemaVersion: row.schema_version,
    rows: BigInt(row.row_count),
    rawBytes: BigInt(row.raw_bytes),
    sizeBytes: BigInt(row.size_bytes),
    sha256: row.sha256,
    tables: tables
      ? row.tables.map((table) =>
          create(BackupTableSchema, {
            name: table.name,
            rows: BigInt(table.rows),
            rawBytes: BigInt(table.raw_bytes),
            contentSha256: table.content_sha256,
            sizeBytes: BigInt(table.size_bytes),
            partSha256: table.part_sha256,
          }),
        )
      : [],
    scheduled: row.scheduled,
    verifyTime: timeOf(row.verified_at),
    verifyError: row.verify_error,
    createTime: timestampFromDate(row.created_at),
  });
}
