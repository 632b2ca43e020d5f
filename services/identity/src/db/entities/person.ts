import { EntitySchema } from '@mad/postgres';

/** A row of identity.users. */
export interface UserRow {
  user_id: string;
  email: string;
  hashed_password: string | null;
  display_name: string;
  role: 'user' | 'admin' | 'super_admin';
  enabled: boolean;
  email_verified: boolean;
  failed_logins: number;
  locked_until: Date | null;
  version: number;
  created_at: Date;
  updated_at: Date;
}

export const UserEntity = new EntitySchema<UserRow>({
  name: 'users',
  schema: 'identity',
  columns: {
    user_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'users_pkey',
      default: () => 'gen_random_uuid()',
    },
    email: { type: 'citext' },
    hashed_password: { type: 'text', nullable: true },
    display_name: { type: 'text', default: '' },
    role: { type: 'enum', enum: ['user', 'admin', 'super_admin'], enumName: 'user_role', default: 'user' },
    enabled: { type: 'boolean', default: true },
    email_verified: { type: 'boolean', default: false },
    failed_logins: { type: 'integer', default: 0 },
    locked_until: { type: 'timestamptz', precision: 3, nullable: true },
    version: { type: 'integer', default: 1 },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});

/** A row of identity.memberships. */
export interface MembershipRow {
  user_id: string;
  org_id: string;
  version: number;
  created_at: Date;
}

export const MembershipEntity = new EntitySchema<MembershipRow>({
  name: 'memberships',
  schema: 'identity',
  columns: {
    user_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'memberships_pkey' },
    org_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'memberships_pkey' },
    version: { type: 'integer', default: 1 },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});

/** A row of identity.membership_roles. */
export interface MembershipRoleRow {
  user_id: string;
  org_id: string;
  role_id: string;
}

export const MembershipRoleEntity = new EntitySchema<MembershipRoleRow>({
  name: 'membership_roles',
  schema: 'identity',
  columns: {
    user_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'membership_roles_pkey' },
    org_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'membership_roles_pkey' },
    role_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'membership_roles_pkey' },
  },
});
