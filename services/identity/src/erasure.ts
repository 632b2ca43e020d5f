import type { Statements } from '@mad/postgres';
import { appendAudit } from './audit/append.ts';
import { auditEvent } from './audit/record.ts';
import type { OrganizationStatusName } from './domain/organization-status.ts';

/** The event that says what was removed. It stays: the chain of an erased organization is kept. */
const ERASED = 'organizations.erased';

/** Rows removed, by table; of `users`, how many were made unrecognizable. */
export type ErasedRows = Readonly<Record<string, number>>;

/** Whoever runs statements: a transaction, or a connection with one open. */
/**
 * Removes what identity holds of an organization, in the caller's transaction, and leaves a tombstone under its id whose
 * name and slug are free again. People who belong to no other organization become unrecognizable, unless they administer
 * the platform; the audit log stays. A repeat removes nothing twice and answers the same.
 */
export async function eraseOrganizationRows(tx: Statements, orgId: string): Promise<ErasedRows> {
  const [organization] = await tx.query<{ status: OrganizationStatusName }>(
    'SELECT status FROM identity.organizations WHERE org_id = $1 FOR UPDATE',
    [orgId],
  );
  if (organization === undefined) return {};
  if (organization.status === 'erased') return alreadyErased(tx, orgId);
  const people = await tx.query<{ user_id: string }>(
    `SELECT u.user_id FROM identity.users u JOIN identity.memberships m USING (user_id)
     WHERE m.org_id = $1 AND u.role <> 'super_admin' AND NOT EXISTS (
       SELECT FROM identity.memberships o WHERE o.user_id = u.user_id AND o.org_id <> $1)
     ORDER BY u.user_id FOR UPDATE OF u`,
    [orgId],
  );
  const nobody = people.map(({ user_id: userId }) => userId);
  const rows: Record<string, number> = {};
  const remove = async (table: string, more = '', params: readonly unknown[] = []): Promise<void> => {
    const sql = `DELETE FROM identity.${table} WHERE org_id = $1${more}`;
    rows[table] = await tx.execute(sql, [orgId, ...params]);
  };
  await remove('user_sessions', ' OR user_id = ANY ($2)', [nobody]);
  await remove('tokens');
  await remove('membership_roles');
  await remove('memberships');
  rows['role_permissions'] = await tx.execute(
    'DELETE FROM identity.role_permissions p USING identity.roles r WHERE r.role_id = p.role_id AND r.org_id = $1',
    [orgId],
  );
  await remove('roles');
  await remove('org_settings');
  await remove('idempotency_keys');
  rows['users'] = await tx.execute(
    `UPDATE identity.users SET email = 'erased-' || user_id || '@erased.invalid', display_name = '',
       hashed_password = NULL, enabled = false, email_verified = false, failed_logins = 0, locked_until = NULL,
       version = version + 1, updated_at = now()
     WHERE user_id = ANY ($1)`,
    [nobody],
  );
  await tx.execute(
    `UPDATE identity.organizations SET status = 'erased', name = 'erased ' || org_id,
       slug = 'erased-' || replace(org_id::text, '-', ''), quotas = '{}', version = version + 1, updated_at = now()
     WHERE org_id = $1`,
    [orgId],
  );
  const fact = { action: ERASED, entityType: 'organization', entityId: orgId, metadata: { rows } };
  await appendAudit(tx, orgId, [auditEvent(orgId, fact, { actorKind: 'service', userId: null })]);
  return rows;
}

async function alreadyErased(tx: Statements, orgId: string): Promise<ErasedRows> {
  const [event] = await tx.query<{ metadata: { rows: ErasedRows } }>(
    'SELECT metadata FROM identity.audit_logs WHERE org_id = $1 AND action = $2 ORDER BY seq LIMIT 1',
    [orgId, ERASED],
  );
  return event?.metadata.rows ?? {};
}
