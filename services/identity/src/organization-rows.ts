import type { OwnedRows, Statements } from '@mad/postgres';
import { appendAudit } from './audit/append.ts';
import { auditEvent } from './audit/record.ts';

const OWN = 't.org_id = $org';
const OF_OWN_ROLE = `EXISTS (SELECT FROM identity.roles r WHERE r.role_id = t.role_id AND r.org_id = $org)`;
const MEMBER = `EXISTS (SELECT FROM identity.memberships m WHERE m.user_id = t.user_id AND m.org_id = $org)`;

/**
 * What of an organization comes back from an archive of the metadata. People may belong to others as well, and the state of
 * an organization is known to all services: both come back where they are missing and stay as they are where they are not.
 * So do tokens: one that was revoked since stays revoked.
 */
export const identityOrganizationRows: OwnedRows = {
  schema: 'identity',
  tables: [
    { name: 'organizations', key: ['org_id'], whose: OWN, rule: 'missing' },
    { name: 'org_settings', key: ['org_id'], whose: OWN, rule: 'equal' },
    { name: 'users', key: ['user_id'], whose: MEMBER, rule: 'missing' },
    { name: 'roles', key: ['role_id'], whose: OWN, rule: 'equal' },
    { name: 'role_permissions', key: ['role_id', 'permission'], whose: OF_OWN_ROLE, rule: 'equal' },
    { name: 'memberships', key: ['user_id', 'org_id'], whose: OWN, rule: 'equal' },
    { name: 'membership_roles', key: ['user_id', 'org_id', 'role_id'], whose: OWN, rule: 'equal' },
    { name: 'tokens', key: ['token_id'], whose: OWN, rule: 'missing' },
  ],
};

/** Organization tables of identity that no archive brings back, and why. */
export const IDENTITY_LEFT_OUT: Readonly<Record<string, string>> = {
  user_sessions: 'in no archive: who was signed in signs in again',
  audit_chains: 'events are only ever added',
  audit_logs: 'events are only ever added',
  idempotency_keys: 'answers of requests of one day',
};

/** Ends the tokens of who is no member any more, and notes in the audit log that rows came back; in the same transaction. */
export async function settleIdentityRows(
  tx: Statements,
  orgId: string,
  { operationId, archive, mode }: { operationId: string; archive: string; mode: string },
): Promise<void> {
  await tx.execute(
    `UPDATE identity.tokens t SET revoked = true WHERE t.org_id = $1 AND NOT t.revoked AND NOT EXISTS (
       SELECT FROM identity.memberships m WHERE m.user_id = t.user_id AND m.org_id = t.org_id)`,
    [orgId],
  );
  const fact = {
    action: 'organizations.rows_restored',
    entityType: 'organization',
    entityId: orgId,
    metadata: { operation_id: operationId, archive, mode },
  };
  await appendAudit(tx, orgId, [auditEvent(orgId, fact, { actorKind: 'platform', userId: null })]);
}
