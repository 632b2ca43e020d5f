import { EntitySchema } from '@mad/postgres';
import type { OrganizationStatusName } from '../../domain/organization-status.ts';

/** A row of identity.organizations. */
export interface OrganizationRow {
  org_id: string;
  name: string;
  slug: string;
  status: OrganizationStatusName;
  region: string;
  quotas: Record<string, number>;
  version: number;
  created_at: Date;
  updated_at: Date;
}

export const OrganizationEntity = new EntitySchema<OrganizationRow>({
  name: 'organizations',
  schema: 'identity',
  columns: {
    org_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'organizations_pkey',
      default: () => 'gen_random_uuid()',
    },
    name: { type: 'text' },
    slug: { type: 'text' },
    status: { type: 'text', default: 'provisioning' },
    region: { type: 'text' },
    quotas: { type: 'jsonb' },
    version: { type: 'integer', default: 1 },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});

/** A row of identity.org_settings. */
export interface OrgSettingsRow {
  org_id: string;
  storage_bucket: string | null;
  storage_prefix: string;
  logs_backend: 'objects' | 'loki';
  retention: Record<string, unknown>;
  config: Record<string, unknown>;
  version: number;
  updated_at: Date;
}

export const OrgSettingsEntity = new EntitySchema<OrgSettingsRow>({
  name: 'org_settings',
  schema: 'identity',
  columns: {
    org_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'org_settings_pkey' },
    storage_bucket: { type: 'text', nullable: true },
    storage_prefix: { type: 'text' },
    logs_backend: { type: 'text', default: 'objects' },
    retention: { type: 'jsonb', default: {} },
    config: { type: 'jsonb', default: {} },
    version: { type: 'integer', default: 1 },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});
