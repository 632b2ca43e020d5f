import { create } from '@bufbuild/protobuf';
import { Code, type ServiceImpl } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import {
  CreateRoleResponseSchema,
  DeleteRoleResponseSchema,
  RoleService,
  UpdateRoleResponseSchema,
} from '@mad/proto/identity';
import { callerOf, invalid, nextPageToken, notFound, pageOf, rpcError } from '@mad/rpc';
import { recordAudit } from '../audit/record.ts';
import type { IdentityContext } from '../context.ts';
import { BUILT_IN_NAMES } from '../domain/permissions.ts';
import { requireHeld } from '../membership.ts';
import { changeOrganization, readOrganization } from '../organization-scope.ts';
import { roleMessage, SELECT_ROLE, type RoleWithPermissions } from './role.ts';

/** Throws INVALID_ARGUMENT naming the first permission that no method of any service asks for. */
function requireKnown(context: IdentityContext, permissions: readonly string[]): void {
  const known = new Set(context.permissions.organization);
  permissions.forEach((permission, index) => {
    if (!known.has(permission)) throw invalid(`permissions[${index}]`, `${permission} is not a permission`);
  });
}

/** Finds a role the organization may change. Built-in roles are seen by everybody and changed by nobody. */
async function requireOwnRole(tx: Tx, orgId: string, roleId: string): Promise<RoleWithPermissions> {
  const [role] = await tx.query<RoleWithPermissions>(
    `${SELECT_ROLE} WHERE r.role_id = $2 AND (r.org_id IS NULL OR r.org_id = $1)`,
    [orgId, roleId],
  );
  if (role === undefined) throw notFound('role', roleId);
  if (role.org_id === null) {
    throw rpcError(Code.FailedPrecondition, 'IMMUTABLE', `the built-in role ${role.name} cannot be changed`);
  }
  return role;
}

async function setPermissions(tx: Tx, roleId: string, permissions: readonly string[]): Promise<void> {
  await tx.execute('DELETE FROM identity.role_permissions WHERE role_id = $1', [roleId]);
  await tx.execute('INSERT INTO identity.role_permissions (role_id, permission) SELECT $1, unnest($2::text[])', [
    roleId,
    [...permissions],
  ]);
}

/** Roles: named lists of permissions, built in or an organization's own. */
export function roleService(context: IdentityContext): ServiceImpl<typeof RoleService> {
  return {
    async createRole(request, ctx) {
      if (BUILT_IN_NAMES.has(request.name)) {
        throw rpcError(Code.AlreadyExists, 'ALREADY_EXISTS', 'name: is a built-in role', { field: 'name' });
      }
      requireKnown(context, request.permissions);
      return changeOrganization(context, ctx, RoleService.method.createRole, request, async (tx, orgId) => {
        requireHeld(callerOf(ctx), request.permissions);
        const roleId = uuidv7();
        await tx.execute('INSERT INTO identity.roles (role_id, org_id, name) VALUES ($1, $2, $3)', [
          roleId,
          orgId,
          request.name,
        ]);
        await setPermissions(tx, roleId, request.permissions);
        await recordAudit(tx, ctx, orgId, {
          action: 'roles.create',
          entityType: 'role',
          entityId: roleId,
          requestId: request.requestId,
          metadata: { name: request.name, permissions: request.permissions },
        });
        const role = {
          role_id: roleId,
          org_id: orgId,
          name: request.name,
          permissions: [...request.permissions].sort(),
        };
        return create(CreateRoleResponseSchema, { role: roleMessage(role) });
      });
    },

    async listRoles(request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const query = { list: 'roles', orgId };
        const page = pageOf(request, { query, isCursor: (cursor) => typeof cursor === 'string' });
        const rows = await tx.query<RoleWithPermissions>(
          `${SELECT_ROLE} WHERE (r.org_id IS NULL OR r.org_id = $1) AND ($2::text IS NULL OR r.name > $2)
           ORDER BY r.name LIMIT $3`,
          [orgId, page.cursor ?? null, page.size + 1],
        );
        const shown = rows.slice(0, page.size);
        return {
          roles: shown.map(roleMessage),
          nextPageToken: rows.length > page.size ? nextPageToken(query, shown.at(-1)!.name) : '',
        };
      });
    },

    async updateRole(request, ctx) {
      requireKnown(context, request.permissions);
      return changeOrganization(context, ctx, RoleService.method.updateRole, request, async (tx, orgId) => {
        const role = await requireOwnRole(tx, orgId, request.roleId);
        requireHeld(callerOf(ctx), request.permissions);
        await setPermissions(tx, role.role_id, request.permissions);
        // What its holders may do has changed, so their older tokens say something else.
        await tx.execute(
          `UPDATE identity.memberships SET version = version + 1 WHERE org_id = $1 AND user_id IN (
             SELECT user_id FROM identity.membership_roles WHERE org_id = $1 AND role_id = $2)`,
          [orgId, role.role_id],
        );
        await recordAudit(tx, ctx, orgId, {
          action: 'roles.update',
          entityType: 'role',
          entityId: role.role_id,
          requestId: request.requestId,
          metadata: { before: role.permissions, after: request.permissions },
        });
        const permissions = [...request.permissions].sort();
        return create(UpdateRoleResponseSchema, { role: roleMessage({ ...role, permissions }) });
      });
    },

    async deleteRole(request, ctx) {
      return changeOrganization(context, ctx, RoleService.method.deleteRole, request, async (tx, orgId) => {
        const role = await requireOwnRole(tx, orgId, request.roleId);
        const held = await tx.query(
          'SELECT 1 FROM identity.membership_roles WHERE org_id = $1 AND role_id = $2 LIMIT 1',
          [orgId, role.role_id],
        );
        if (held.length > 0) {
          throw rpcError(Code.FailedPrecondition, 'IN_USE', `a member holds the role ${role.name}`);
        }
        await tx.execute('DELETE FROM identity.roles WHERE org_id = $1 AND role_id = $2', [orgId, role.role_id]);
        await recordAudit(tx, ctx, orgId, {
          action: 'roles.delete',
          entityType: 'role',
          entityId: role.role_id,
          requestId: request.requestId,
          metadata: { name: role.name },
        });
        return create(DeleteRoleResponseSchema);
      });
    },
  };
}
