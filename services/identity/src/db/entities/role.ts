import { EntitySchema } from '@mad/postgres';

/** A row of identity.roles; org_id null for built-in ones. */
export interface RoleRow {
  role_id: string;
  org_id: string | null;
  name: string;
  created_at: Date;
}

export const RoleEntity = new EntitySchema<RoleRow>({
  name: 'roles',
  schema: 'identity',
  columns: {
    role_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'roles_pkey',
      default: () => 'gen_random_uuid()',
    },
    org_id: { type: 'uuid', nullable: true },
    name: { type: 'text' },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});

/** A row of identity.role_permissions. */
export interface RolePermissionRow {
  role_id: string;
  permission: string;
}

export const RolePermissionEntity = new EntitySchema<RolePermissionRow>({
  name: 'role_permissions',
  schema: 'identity',
  columns: {
    role_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'role_permissions_pkey' },
    permission: { type: 'text', primary: true, primaryKeyConstraintName: 'role_permissions_pkey' },
  },
});
