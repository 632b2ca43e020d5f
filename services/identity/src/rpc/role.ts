import { create } from '@bufbuild/protobuf';
import { RoleSchema, type Role } from '@mad/proto/identity';
import type { Tx } from '@mad/postgres';
import { invalid } from '@mad/rpc';
import type { RoleRow } from '../db/entities/role.ts';
import { PLATFORM_ROLE } from '../domain/permissions.ts';

/** A role with what it allows. */
export type RoleWithPermissions = Pick<RoleRow, 'role_id' | 'org_id' | 'name'> & { permissions: string[] };

/** Selects roles with their permissions, from `identity.roles r`. */
export const SELECT_ROLE = `
  SELECT r.role_id, r.org_id, r.name,
         ARRAY(SELECT rp.permission FROM identity.role_permissions rp WHERE rp.role_id = r.role_id
               ORDER BY rp.permission) AS permissions
  FROM identity.roles r`;

/** A role as callers see it. */
export function roleMessage(row: RoleWithPermissions): Role {
  return create(RoleSchema, {
    roleId: row.role_id,
    orgId: row.org_id ?? '',
    name: row.name,
    permissions: row.permissions,
    builtIn: row.org_id === null,
  });
}

/**
 * Finds the roles that an organization's member can hold, by name: built-in ones and the organization's own. Throws
 * INVALID_ARGUMENT naming the first that does not exist; the platform's role is none of them.
 */
export async function findRoles(tx: Tx, orgId: string, names: readonly string[]): Promise<RoleWithPermissions[]> {
  const rows = await tx.query<RoleWithPermissions>(
    `${SELECT_ROLE} WHERE (r.org_id IS NULL OR r.org_id = $1) AND r.name = ANY ($2) AND r.name <> '${PLATFORM_ROLE}'`,
    [orgId, [...names]],
  );
  const found = new Set(rows.map(({ name }) => name));
  names.forEach((name, index) => {
    if (!found.has(name)) throw invalid(`roles[${index}]`, `${JSON.stringify(name)} is not a role of the organization`);
  });
  return rows;
}
