import { Code, type ConnectError } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { DAY_MS, uuidv7 } from '@mad/process';
import { rpcError } from '@mad/rpc';
import { appendAudit } from '../audit/append.ts';
import { auditEvent } from '../audit/record.ts';
import type { IdentityContext } from '../context.ts';
import type { UserSessionRow } from '../db/entities/credential.ts';
import type { UserRow } from '../db/entities/person.ts';
import { PLATFORM_ORG_ID } from '../domain/audit-chain.ts';
import { allowedUse, type OrganizationStatusName } from '../domain/organization-status.ts';
import { PLATFORM_ROLE } from '../domain/permissions.ts';
import { memberAccess } from '../membership.ts';
import { organizationSuspended } from '../organization-scope.ts';
import { newSecret, type MasterKey } from '../secrets/master-key.ts';
import type { Subject } from './access-token.ts';

/** A person signs in anew after this, however often the session was refreshed. */
const SESSION_LIFE_MS = 30 * DAY_MS;

/** A refresh token, known to its holder alone. */
export interface RefreshToken {
  token: string;
  expiresAt: Date;
  /** The sign-in it belongs to. */
  family: string;
}

interface NewSession {
  userId: string;
  orgId: string | undefined;
  device: string;
  address: string;
}

async function insertSession(
  tx: Tx,
  master: MasterKey,
  session: NewSession & { family: string; expiresAt: Date },
): Promise<RefreshToken> {
  const token = newSecret();
  await tx.execute(
    `INSERT INTO identity.user_sessions (session_id, user_id, org_id, refresh_digest, family, device, address, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
    [
      uuidv7(),
      session.userId,
      session.orgId ?? null,
      master.refreshDigest(token),
      session.family,
      session.device,
      session.address,
      session.expiresAt,
    ],
  );
  return { token, expiresAt: session.expiresAt, family: session.family };
}

/** Opens a session. */
export function startSession(tx: Tx, master: MasterKey, session: NewSession): Promise<RefreshToken> {
  const expiresAt = new Date(Date.now() + SESSION_LIFE_MS);
  return insertSession(tx, master, { ...session, family: uuidv7(), expiresAt });
}

/** Ends a sign-in: none of its refresh tokens is good any more. */
async function endFamily(tx: Tx, family: string): Promise<void> {
  await tx.execute('UPDATE identity.user_sessions SET revoked_at = now() WHERE family = $1 AND revoked_at IS NULL', [
    family,
  ]);
}

type Found = UserSessionRow &
  Pick<UserRow, 'enabled' | 'role'> & { user_version: number; status: OrganizationStatusName | null };

/** Reads a session by its token and locks it: of two exchanges at once the second is a reuse. */
async function findSession(tx: Tx, digest: Buffer): Promise<Found | undefined> {
  const [row] = await tx.query<Found>(
    `SELECT s.session_id, s.user_id, s.org_id, s.family, s.device, s.address, s.used_at, s.revoked_at, s.expires_at,
            u.enabled, u.role, u.version AS user_version, o.status
     FROM identity.user_sessions s JOIN identity.users u ON u.user_id = s.user_id
     LEFT JOIN identity.organizations o ON o.org_id = s.org_id
     WHERE s.refresh_digest = $1 FOR UPDATE OF s`,
    [digest],
  );
  return row;
}

async function recordReuse(tx: Tx, session: Found): Promise<void> {
  const orgId = session.org_id ?? PLATFORM_ORG_ID;
  const fact = {
    action: 'sessions.reuse_detected',
    entityType: 'session',
    entityId: session.family,
    outcome: 'unauthenticated',
  };
  const actor = { actorKind: session.org_id === null ? ('platform' as const) : ('user' as const) };
  await appendAudit(tx, orgId, [auditEvent(orgId, fact, { ...actor, userId: session.user_id })]);
}

function ended(): ConnectError {
  return rpcError(Code.Unauthenticated, 'TOKEN_INVALID', 'the session has ended: sign in again');
}

async function subjectOf(tx: Tx, context: IdentityContext, session: Found): Promise<Subject | undefined> {
  const { user_id: userId, org_id: orgId, family: sessionId } = session;
  if (orgId !== null) {
    const access = await memberAccess(tx, orgId, userId);
    return access && { userId, orgId, ...access, sessionId };
  }
  if (session.role !== PLATFORM_ROLE) return undefined;
  const permissions = [...context.permissions.platform];
  return { userId, roles: [PLATFORM_ROLE], permissions, version: session.user_version, sessionId };
}

/**
 * Exchanges a refresh token for the next. A second exchange of the same one means that two hold it, so the whole
 * sign-in ends. Throws UNAUTHENTICATED, or FAILED_PRECONDITION when the organization is suspended.
 */
export async function exchangeRefreshToken(
  context: IdentityContext,
  token: string,
): Promise<{ subject: Subject; refresh: RefreshToken }> {
  // What is found out is kept even where the answer is an error, so no error is thrown inside.
  const result = await context.database.asSystem(async (tx) => {
    const session = await findSession(tx, context.master.refreshDigest(token));
    if (session === undefined) return ended();
    if (session.org_id !== null && allowedUse(session.status!) === 'nothing') {
      return organizationSuspended(session.org_id);
    }
    if (session.revoked_at !== null || session.expires_at <= new Date()) return ended();
    if (session.used_at !== null) {
      await endFamily(tx, session.family);
      await recordReuse(tx, session);
      const message = 'the refresh token was used before: the session has ended, sign in again';
      return rpcError(Code.Unauthenticated, 'REFRESH_TOKEN_REUSED', message);
    }
    const subject = session.enabled ? await subjectOf(tx, context, session) : undefined;
    if (subject === undefined) {
      await endFamily(tx, session.family);
      return ended();
    }
    await tx.execute('UPDATE identity.user_sessions SET used_at = now(), last_seen_at = now() WHERE session_id = $1', [
      session.session_id,
    ]);
    const refresh = await insertSession(tx, context.master, {
      userId: session.user_id,
      orgId: session.org_id ?? undefined,
      family: session.family,
      device: session.device,
      address: session.address,
      expiresAt: session.expires_at,
    });
    return { subject, refresh };
  });
  if (result instanceof Error) throw result;
  return result;
}

/** Ends the sign-in that a refresh token, used or not, belongs to. An unknown token ends nothing. */
export async function endSession(context: IdentityContext, token: string): Promise<void> {
  await context.database.asSystem(async (tx) => {
    const session = await findSession(tx, context.master.refreshDigest(token));
    if (session === undefined || session.revoked_at !== null) return;
    await endFamily(tx, session.family);
    const orgId = session.org_id ?? PLATFORM_ORG_ID;
    const fact = { action: 'sessions.logout', entityType: 'session', entityId: session.family };
    const actorKind = session.org_id === null ? ('platform' as const) : ('user' as const);
    await appendAudit(tx, orgId, [auditEvent(orgId, fact, { actorKind, userId: session.user_id })]);
  });
}
