import { EntitySchema } from '@mad/postgres';

/** A row of provisioner.data_keys. */
export interface DataKeyRow {
  org_id: string;
  version: number;
  wrapped_key: Buffer;
  master_key_version: number;
  created_at: Date;
}

export const DataKeyEntity = new EntitySchema<DataKeyRow>({
  name: 'data_keys',
  schema: 'provisioner',
  columns: {
    org_id: { type: 'uuid', primary: true },
    version: { type: 'integer', primary: true },
    wrapped_key: { type: 'bytea' },
    master_key_version: { type: 'integer' },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});

/** A row of provisioner.tenant_credentials. */
export interface CredentialRow {
  org_id: string;
  schema: string;
  slot: 'a' | 'b';
  role_name: string;
  secret: Buffer;
  data_key_version: number;
  active: boolean;
  created_at: Date;
  set_at: Date;
  retire_at: Date | null;
  sessions_before: Date | null;
}

export const CredentialEntity = new EntitySchema<CredentialRow>({
  name: 'tenant_credentials',
  schema: 'provisioner',
  columns: {
    org_id: { type: 'uuid', primary: true },
    schema: { type: 'text', primary: true },
    slot: { type: 'text', primary: true },
    role_name: { type: 'text' },
    secret: { type: 'bytea' },
    data_key_version: { type: 'integer' },
    active: { type: 'boolean' },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    set_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    retire_at: { type: 'timestamptz', precision: 3, nullable: true },
    sessions_before: { type: 'timestamptz', nullable: true },
  },
});
