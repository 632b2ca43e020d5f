import type { JsonObject } from '@bufbuild/protobuf';
import { EntitySchema } from '@mad/postgres';
import type { OperationCause } from '../../domain/operation-cause.ts';
import type { ObjectKind, OperationKind } from '../../domain/plan.ts';

export type OperationState = 'running' | 'succeeded' | 'failed' | 'cancelled';

/** A row of provisioner.operations. */
export interface OperationRow {
  operation_id: string;
  org_id: string;
  schema: string;
  kind: OperationKind;
  state: OperationState;
  error: string;
  cause: OperationCause;
  params: JsonObject;
  result: JsonObject;
  actor_kind: 'user' | 'platform' | 'service';
  user_id: string | null;
  step: string;
  progress_done: number;
  progress_total: number;
  progress_unit: string;
  cancel_requested_at: Date | null;
  started_at: Date;
  ended_at: Date | null;
  updated_at: Date;
}

/** Every column of an OperationRow, for queries. */
export const OPERATION_COLUMNS = `operation_id, org_id, schema, kind, state, error, cause, params, result, actor_kind, user_id, step,
  progress_done, progress_total, progress_unit, cancel_requested_at, started_at, ended_at, updated_at`;

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
    cause: { type: 'text', default: '' },
    params: { type: 'jsonb', default: {} },
    result: { type: 'jsonb', default: {} },
    actor_kind: { type: 'text', default: 'service' },
    user_id: { type: 'uuid', nullable: true },
    step: { type: 'text', default: '' },
    progress_done: { type: 'bigint', default: 0 },
    progress_total: { type: 'bigint', default: 0 },
    progress_unit: { type: 'text', default: 'steps' },
    cancel_requested_at: { type: 'timestamptz', precision: 3, nullable: true },
    started_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    ended_at: { type: 'timestamptz', precision: 3, nullable: true },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
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
  /** Not removed before. */
  keep_until: Date | null;
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
    keep_until: { type: 'timestamptz', precision: 3, nullable: true },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
  uniques: [{ name: 'cleanup_records_object_key', columns: ['server_id', 'object_kind', 'object_name'] }],
});
