import { EntitySchema } from '@mad/postgres';
import type { ObjectKind, OperationKind } from '../../domain/plan.ts';

/** A row of provisioner.operations. */
export interface OperationRow {
  operation_id: string;
  org_id: string;
  schema: string;
  kind: OperationKind;
  state: 'running' | 'succeeded' | 'failed';
  error: string;
  started_at: Date;
  ended_at: Date | null;
}

export const OperationEntity = new EntitySchema<OperationRow>({
  name: 'operations',
  schema: 'provisioner',
  columns: {
    operation_id: { type: 'uuid', primary: true, default: () => 'gen_random_uuid()' },
    org_id: { type: 'uuid' },
    schema: { type: 'text' },
    kind: { type: 'text' },
    state: { type: 'text', default: 'running' },
    error: { type: 'text', default: '' },
    started_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    ended_at: { type: 'timestamptz', precision: 3, nullable: true },
  },
});

/** A row of provisioner.cleanup_records. */
export interface CleanupRow {
  cleanup_id: string;
  operation_id: string;
  org_id: string;
  schema: string;
  server_id: string;
  object_kind: ObjectKind;
  object_name: string;
  created_at: Date;
}

export const CleanupEntity = new EntitySchema<CleanupRow>({
  name: 'cleanup_records',
  schema: 'provisioner',
  columns: {
    cleanup_id: { type: 'uuid', primary: true, default: () => 'gen_random_uuid()' },
    operation_id: { type: 'uuid' },
    org_id: { type: 'uuid' },
    schema: { type: 'text' },
    server_id: { type: 'uuid' },
    object_kind: { type: 'text' },
    object_name: { type: 'text' },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
  uniques: [{ name: 'cleanup_records_object_key', columns: ['server_id', 'object_kind', 'object_name'] }],
});
