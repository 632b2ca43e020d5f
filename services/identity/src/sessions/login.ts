import { Code, type ConnectError, type HandlerContext } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { SECOND_MS, sleep } from '@mad/process';
import { addressOf, invalid, rpcError } from '@mad/rpc';
import { appendAudit } from '../audit/append.ts';
import { auditEvent } from '../audit/record.ts';
import type { IdentityContext } from '../context.ts';
import type { UserRow } from '../db/entities/person.ts';
import { PLATFORM_ORG_ID } from '../domain/audit-chain.ts';
import { chargeAttempt } from '../domain/login-backoff.ts';
import { allowedUse, type OrganizationStatusName } from '../domain/organization-status.ts';
import { PLATFORM_ROLE } from '../domain/permissions.ts';
import { memberAccess } from '../membership.ts';
import { organizationSuspended } from '../organization-scope.ts';
import type { Subject } from './access-token.ts';
import { startSession, type RefreshToken } from './refresh-token.ts';

/** What somebody who signs in says. */
export interface Credentials {
  email: string;
  password: string;
  /** Slug, or empty. */
  organization: string;
  device: string;
}

/** Who signed in. */
export interface SignIn {
  subject: Subject;
  refresh: RefreshToken;
}

/**
 * No refusal comes sooner. An unknown address costs a password check as a known one does, but not the writes that
 * count a mistake: this hides them.
 */
const REFUSAL_MS = SECOND_MS / 4;

type Account = Pick<UserRow, 'user_id' | 'hashed_password' | 'role' | 'version'>;

/** One answer for every reason, so that nobody learns which addresses have an account. */
function refused(): ConnectError {
  const message = 'e-mail or password is wrong, or the account is locked for some minutes after many attempts';
  return rpcError(Code.Unauthenticated, 'CREDENTIALS_WRONG', message);
}

/** Finds the account and charges the attempt; undefined when nothing may be tried: unknown, disabled or locked. */
async function chargedAccount(tx: Tx, email: string, now: Date): Promise<Account | undefined> {
  const [row] = await tx.query<UserRow>(
    `SELECT user_id, hashed_password, role, version, enabled, failed_logins, locked_until
     FROM identity.users WHERE email = $1::citext FOR UPDATE`,
    [email],
  );
  if (row === undefined || !row.enabled) return undefined;
  const charged = chargeAttempt({ failedLogins: row.failed_logins, lockedUntil: row.locked_until }, now);
  if (charged === undefined) return undefined;
  await tx.execute('UPDATE identity.users SET failed_logins = $2, locked_until = $3 WHERE user_id = $1', [
    row.user_id,
    charged.failedLogins,
    charged.lockedUntil,
  ]);
  return row;
}

async function recordLogin(tx: Tx, ctx: HandlerContext, orgId: string, userId: string, outcome: string): Promise<void> {
  const fact = { action: 'sessions.login', entityType: 'user', entityId: userId, outcome };
  const actor = { actorKind: orgId === PLATFORM_ORG_ID ? ('platform' as const) : ('user' as const), userId };
  await appendAudit(tx, orgId, [auditEvent(orgId, fact, actor, addressOf(ctx))]);
}

/** What the account acts in: the platform, or the organization asked for, or the only one there is. */
async function subjectOf(
  tx: Tx,
  context: IdentityContext,
  account: Account,
  slug: string,
): Promise<Subject | ConnectError> {
  if (account.role === PLATFORM_ROLE && slug === '') {
    const permissions = [...context.permissions.platform];
    return { userId: account.user_id, roles: [PLATFORM_ROLE], permissions, version: account.version };
  }
  const organizations = await tx.query<{ org_id: string; status: OrganizationStatusName }>(
    `SELECT o.org_id, o.status FROM identity.memberships m JOIN identity.organizations o ON o.org_id = m.org_id
     WHERE m.user_id = $1 AND ($2 = '' OR o.slug = $2) LIMIT 2`,
    [account.user_id, slug],
  );
  const [organization, another] = organizations;
  if (organization === undefined) return refused();
  if (another !== undefined) return invalid('organization', 'the account belongs to several organizations: name one');
  if (allowedUse(organization.status) === 'nothing') return organizationSuspended(organization.org_id);
  const access = await memberAccess(tx, organization.org_id, account.user_id);
  return { userId: account.user_id, orgId: organization.org_id, ...access! };
}

/**
 * Signs a person in and opens a session. Throws UNAUTHENTICATED for whatever is wrong with address, password or
 * organization; FAILED_PRECONDITION when all are right and the organization is suspended.
 */
export async function login(context: IdentityContext, ctx: HandlerContext, credentials: Credentials): Promise<SignIn> {
  const earliest = sleep(REFUSAL_MS);
  try {
    return await signIn(context, ctx, credentials);
  } catch (error) {
    await earliest;
    throw error;
  }
}

async function signIn(context: IdentityContext, ctx: HandlerContext, credentials: Credentials): Promise<SignIn> {
  const { database, passwords } = context;
  const account = await database.asSystem((tx) => chargedAccount(tx, credentials.email, new Date()));
  const right = await passwords.check(account?.hashed_password ?? null, credentials.password);
  if (account === undefined) throw refused();
  if (!right) {
    await database.asSystem((tx) => recordLogin(tx, ctx, PLATFORM_ORG_ID, account.user_id, 'unauthenticated'));
    throw refused();
  }
  // The good password is kept as such even where the sign-in then ends in an error: it must not be thrown inside.
  const result = await database.asSystem(async (tx): Promise<SignIn | ConnectError> => {
    await tx.execute('UPDATE identity.users SET failed_logins = 0, locked_until = NULL WHERE user_id = $1', [
      account.user_id,
    ]);
    const subject = await subjectOf(tx, context, account, credentials.organization);
    if (subject instanceof Error) return subject;
    const refresh = await startSession(tx, context.master, {
      userId: subject.userId,
      orgId: subject.orgId,
      device: credentials.device,
      address: addressOf(ctx),
    });
    await recordLogin(tx, ctx, subject.orgId ?? PLATFORM_ORG_ID, subject.userId, 'ok');
    return { subject: { ...subject, sessionId: refresh.family }, refresh };
  });
  if (result instanceof Error) throw result;
  return result;
}
