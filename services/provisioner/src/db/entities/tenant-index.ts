import { EntitySchema, type SchemaObject } from '@mad/postgres';

/** A row of provisioner.tenant_indexes. */
export interface TenantIndexRow {
  org_id: string;
  schema: string;
  name: string;
  table_name: string;
  /** E.g. `score desc`. */
  columns: string[];
  method: string;
  state: 'building' | 'ready' | 'dropping';
  /** As the catalog says it; empty until it was built once. */
  definition: string;
  created_at: Date;
}

export const TenantIndexEntity = new EntitySchema<TenantIndexRow>({
  name: 'tenant_indexes',
  schema: 'provisioner',
  columns: {
    org_id: { type: 'uuid', primary: true },
    schema: { type: 'text', primary: true },
    name: { type: 'text', primary: true },
    table_name: { type: 'text' },
    columns: { type: 'text', array: true },
    method: { type: 'text' },
    state: { type: 'text', default: 'building' },
    definition: { type: 'text', default: '' },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});

/** A row of provisioner.schema_references: what a list of migrations makes. */
export interface SchemaReferenceRow {
  server_id: string;
  schema: string;
  /** SHA-256 of the migrations' text. */
  digest: string;
  /** Postgres's, as a number: another release may describe the same objects in other words. */
  server_version: number;
  objects: SchemaObject[];
  created_at: Date;
}

export const SchemaReferenceEntity = new EntitySchema<SchemaReferenceRow>({
  name: 'schema_references',
  schema: 'provisioner',
  columns: {
    server_id: { type: 'uuid', primary: true },
    schema: { type: 'text', primary: true },
    digest: { type: 'text', primary: true },
    server_version: { type: 'integer', primary: true },
    objects: { type: 'jsonb' },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});
