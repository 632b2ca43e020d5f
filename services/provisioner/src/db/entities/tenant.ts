import { EntitySchema } from '@mad/postgres';
import type { StepName } from '../../domain/plan.ts';
import type { TenantStateName } from '../../domain/tenant-state.ts';

/** A row of provisioner.tenants. */
export interface TenantRow {
  org_id: string;
  schema: string;
  server_id: string;
  database_name: string;
  region: string;
  state: TenantStateName;
  operation_id: string;
  step: StepName | null;
  step_owner: string | null;
  step_lease_until: Date | null;
  generation: number;
  schema_version: string;
  fingerprint: string;
  labels: Record<string, string>;
  last_error: string;
  ready_at: Date | null;
  drift_looked_at: Date | null;
  drift_count: number | null;
  created_at: Date;
  updated_at: Date;
}

/** Every column of a TenantRow, for queries. */
export const TENANT_COLUMNS = `org_id, schema, server_id, database_name, region, state, operation_id, step, step_owner,
  step_lease_until, generation, schema_version, fingerprint, labels, last_error, ready_at,
  drift_looked_at, drift_count, created_at, updated_at`;

export const TenantEntity = new EntitySchema<TenantRow>({
  name: 'tenants',
  schema: 'provisioner',
  columns: {
    org_id: { type: 'uuid', primary: true },
    schema: { type: 'text', primary: true },
    server_id: { type: 'uuid' },
    database_name: { type: 'text' },
    region: { type: 'text' },
    state: { type: 'text', default: 'requested' },
    operation_id: { type: 'uuid' },
    step: { type: 'text', nullable: true },
    step_owner: { type: 'uuid', nullable: true },
    step_lease_until: { type: 'timestamptz', precision: 3, nullable: true },
    generation: { type: 'bigint', default: 1 },
    schema_version: { type: 'text', default: '' },
    fingerprint: { type: 'text', default: '' },
    labels: { type: 'jsonb', default: {} },
    last_error: { type: 'text', default: '' },
    ready_at: { type: 'timestamptz', precision: 3, nullable: true },
    drift_looked_at: { type: 'timestamptz', precision: 3, nullable: true },
    drift_count: { type: 'integer', nullable: true },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
  uniques: [{ name: 'tenants_database_name_key', columns: ['server_id', 'database_name'] }],
});

/** A row of provisioner.tenant_change_counters. */
export interface ChangeCounterRow {
  schema: string;
  last_seq: number;
}

export const ChangeCounterEntity = new EntitySchema<ChangeCounterRow>({
  name: 'tenant_change_counters',
  schema: 'provisioner',
  columns: {
    schema: { type: 'text', primary: true },
    last_seq: { type: 'bigint', default: 0 },
  },
});

/** A row of provisioner.tenant_changes. */
export interface ChangeRow {
  schema: string;
  seq: number;
  org_id: string;
  generation: number;
  state: TenantStateName;
  changed_at: Date;
}

export const ChangeEntity = new EntitySchema<ChangeRow>({
  name: 'tenant_changes',
  schema: 'provisioner',
  columns: {
    schema: { type: 'text', primary: true },
    seq: { type: 'bigint', primary: true },
    org_id: { type: 'uuid' },
    generation: { type: 'bigint' },
    state: { type: 'text' },
    changed_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});
