import { Code, type ConnectError } from '@connectrpc/connect';
import { rpcError } from '@mad/rpc';
import type { IdentityContext } from '../context.ts';
import type { TokenRow } from '../db/entities/credential.ts';
import { parseApiToken } from '../domain/api-token.ts';
import { scopedPermissions } from '../domain/permissions.ts';
import { memberAccess } from '../membership.ts';
import { requireUse } from '../organization-scope.ts';
import { sameDigest } from '../secrets/master-key.ts';
import type { Subject } from './access-token.ts';
import type { OrganizationStatusName } from '../domain/organization-status.ts';

type Found = TokenRow & { enabled: boolean; status: OrganizationStatusName };

function unknownToken(): ConnectError {
  return rpcError(Code.Unauthenticated, 'TOKEN_INVALID', 'the API token is unknown, revoked or expired');
}

/** The person behind an API token, limited to its scopes. Throws UNAUTHENTICATED; FAILED_PRECONDITION when suspended. */
export async function apiTokenSubject(context: IdentityContext, text: string): Promise<Subject> {
  const token = parseApiToken(text);
  if (token === undefined) throw unknownToken();
  return context.database.asSystem(async (tx) => {
    const [row] = await tx.query<Found>(
      `SELECT t.token_id, t.user_id, t.org_id, t.digest, t.scopes, t.expires_at, t.revoked, u.enabled, o.status
       FROM identity.tokens t JOIN identity.users u ON u.user_id = t.user_id
       JOIN identity.organizations o ON o.org_id = t.org_id WHERE t.prefix = $1`,
      [token.prefix],
    );
    if (row === undefined || !sameDigest(row.digest, context.master.tokenDigest(token.secret))) throw unknownToken();
    if (row.revoked || !row.enabled || row.expires_at <= new Date()) throw unknownToken();
    requireUse(row.org_id, row.status, 'reading');
    const access = await memberAccess(tx, row.org_id, row.user_id);
    if (access === undefined) throw unknownToken();
    // To the minute: a busy program would otherwise write a row for every call.
    await tx.execute(
      `UPDATE identity.tokens SET last_used_at = date_trunc('minute', now())
       WHERE token_id = $1 AND last_used_at IS DISTINCT FROM date_trunc('minute', now())`,
      [row.token_id],
    );
    const permissions = scopedPermissions(row.scopes, access.permissions);
    return { userId: row.user_id, orgId: row.org_id, roles: access.roles, permissions, version: access.version };
  });
}
