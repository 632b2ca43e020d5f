import { EntitySchema } from '@mad/postgres';
import type { ArchivedTable } from '../../backups/archive-format.ts';

/** A row of provisioner.backups. Where it stands follows from `completed_at`, `deleting_at` and its operation. */
export interface BackupRow {
  backup_id: string;
  org_id: string;
  schema: string;
  operation_id: string;
  scheduled: boolean;
  /** Where its archive is or was about to be; empty before it was begun. */
  object_key: string;
  completed_at: Date | null;
  snapshot_at: Date | null;
  generation: number;
  schema_version: string;
  row_count: number;
  raw_bytes: number;
  size_bytes: number;
  sha256: string;
  tables: ArchivedTable[];
  verified_at: Date | null;
  verify_error: string;
  /** When it was tried last, well or not. */
  tried_at: Date | null;
  deleting_at: Date | null;
  created_at: Date;
}

export const BackupEntity = new EntitySchema<BackupRow>({
  name: 'backups',
  schema: 'provisioner',
  columns: {
    backup_id: { type: 'uuid', primary: true, default: () => 'gen_random_uuid()' },
    org_id: { type: 'uuid' },
    schema: { type: 'text' },
    operation_id: { type: 'uuid' },
    scheduled: { type: 'boolean', default: false },
    object_key: { type: 'text', default: '' },
    completed_at: { type: 'timestamptz', precision: 3, nullable: true },
    snapshot_at: { type: 'timestamptz', precision: 3, nullable: true },
    generation: { type: 'bigint', default: 0 },
    schema_version: { type: 'text', default: '' },
    row_count: { type: 'bigint', default: 0 },
    raw_bytes: { type: 'bigint', default: 0 },
    size_bytes: { type: 'bigint', default: 0 },
    sha256: { type: 'text', default: '' },
    tables: { type: 'jsonb', default: [] },
    verified_at: { type: 'timestamptz', precision: 3, nullable: true },
    verify_error: { type: 'text', default: '' },
    tried_at: { type: 'timestamptz', precision: 3, nullable: true },
    deleting_at: { type: 'timestamptz', precision: 3, nullable: true },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});

/** A row of provisioner.backup_policies: an organization's own; the others have everybody's. */
export interface BackupPolicyRow {
  org_id: string;
  every_hours: number;
  keep: number;
  updated_at: Date;
}

export const BackupPolicyEntity = new EntitySchema<BackupPolicyRow>({
  name: 'backup_policies',
  schema: 'provisioner',
  columns: {
    org_id: { type: 'uuid', primary: true },
    every_hours: { type: 'integer' },
    keep: { type: 'integer' },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});
