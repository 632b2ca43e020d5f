import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { rpcError, type Caller } from '@mad/rpc';
import { exceeding } from './domain/permissions.ts';

/** What a member may do. */
export interface MemberAccess {
  /** Names of roles, sorted. */
  roles: string[];
  /** What they allow together, sorted. */
  permissions: string[];
  /** Grows with every change of roles. */
  version: number;
}

/** Returns what a person may do in an organization; undefined when they are no member. */
export async function memberAccess(tx: Tx, orgId: string, userId: string): Promise<MemberAccess | undefined> {
  const [row] = await tx.query<MemberAccess>(
    `SELECT m.version,
       ARRAY(SELECT r.name FROM identity.membership_roles mr JOIN identity.roles r ON r.role_id = mr.role_id
              WHERE mr.user_id = m.user_id AND mr.org_id = m.org_id ORDER BY r.name) AS roles,
       ARRAY(SELECT DISTINCT rp.permission FROM identity.membership_roles mr
               JOIN identity.role_permissions rp ON rp.role_id = mr.role_id
              WHERE mr.user_id = m.user_id AND mr.org_id = m.org_id ORDER BY rp.permission) AS permissions
     FROM identity.memberships m WHERE m.org_id = $1 AND m.user_id = $2`,
    [orgId, userId],
  );
  return row;
}

/** Throws PERMISSION_DENIED when the caller would give, or take, what they do not hold themselves. */
export function requireHeld(caller: Caller, permissions: Iterable<string>): void {
  // A platform administrator makes an organization's first administrator and holds nothing in it.
  if (caller.kind === 'platform') return;
  const missing = exceeding(permissions, caller.kind === 'user' ? caller.permissions : []);
  if (missing.length === 0) return;
  throw rpcError(Code.PermissionDenied, 'PERMISSION_MISSING', `you do not hold ${missing.join(', ')} yourself`, {
    permissions: missing.join(','),
  });
}
