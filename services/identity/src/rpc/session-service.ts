import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import type { ServiceImpl } from '@connectrpc/connect';
import type { SessionService } from '@mad/proto/identity';
import { callerOf, requireName, userOf } from '@mad/rpc';
import { recordAudit } from '../audit/record.ts';
import type { IdentityContext } from '../context.ts';
import { organizationNotFound, requireUse } from '../organization-scope.ts';
import { accessToken, type Subject } from '../sessions/access-token.ts';
import { apiTokenSubject } from '../sessions/api-token.ts';
import { login } from '../sessions/login.ts';
import { endSession, exchangeRefreshToken, type RefreshToken } from '../sessions/refresh-token.ts';
import type { OrganizationStatusName } from '../domain/organization-status.ts';

/** The tokens of whoever signed in, whose next step is to read: the organization's database is opened meanwhile. */
async function tokenPair(context: IdentityContext, subject: Subject, refresh?: RefreshToken) {
  if (subject.orgId !== undefined) context.prewarm(subject.orgId);
  return {
    ...(await accessToken(context, subject)),
    refreshToken: refresh?.token ?? '',
    refreshExpireTime: refresh && timestampFromDate(refresh.expiresAt),
  };
}

/** Signing in, staying signed in, signing out. */
export function sessionService(context: IdentityContext): ServiceImpl<typeof SessionService> {
  const { database } = context;
  return {
    async login(request, ctx) {
      requireName('device', request.device, { mayBeEmpty: true });
      const { subject, refresh } = await login(context, ctx, request);
      const tokens = await tokenPair(context, subject, refresh);
      return { tokens, userId: subject.userId, orgId: subject.orgId ?? '' };
    },

    async refreshSession(request) {
      const { subject, refresh } = await exchangeRefreshToken(context, request.refreshToken);
      return { tokens: await tokenPair(context, subject, refresh) };
    },

    async logout(request) {
      await endSession(context, request.refreshToken);
      return {};
    },

    async exchangeToken(request) {
      return { tokens: await tokenPair(context, await apiTokenSubject(context, request.token)) };
    },

    async actOnOrganization(request, ctx) {
      requireName('reason', request.reason);
      const caller = callerOf(ctx);
      if (caller.kind !== 'platform') throw new TypeError('the access rule admits platform administrators alone');
      const { orgId, reason } = request;
      await database.inOrg(
        orgId,
        async (tx) => {
          const [organization] = await tx.query<{ status: OrganizationStatusName }>(
            'SELECT status FROM identity.organizations WHERE org_id = $1',
            [orgId],
          );
          if (organization === undefined) throw organizationNotFound(orgId);
          requireUse(orgId, organization.status, 'reading');
          const fact = { action: 'sessions.act', entityType: 'organization', entityId: orgId, metadata: { reason } };
          await recordAudit(tx, ctx, orgId, fact);
        },
        { signal: ctx.signal },
      );
      const permissions = [...context.permissions.organization];
      const subject = {
        userId: caller.userId,
        orgId,
        roles: ['admin'],
        permissions,
        version: 0,
        onBehalf: caller.userId,
      };
      return { tokens: await tokenPair(context, subject) };
    },

    async whoAmI(_request, ctx) {
      const caller = userOf(ctx);
      // One's own address is one's own wherever one acts: an administrator acting on an organization is no member of it.
      const [account] = await database.asSystem(
        (tx) =>
          tx.query<{ email: string; slug: string }>(
            `SELECT u.email::text AS email, o.slug FROM identity.users u, identity.organizations o
             WHERE u.user_id = $1 AND o.org_id = $2`,
            [caller.userId, caller.orgId],
          ),
        { signal: ctx.signal },
      );
      if (account === undefined) throw organizationNotFound(caller.orgId);
      const { userId, orgId, roles, permissions } = caller;
      return { userId, orgId, roles, permissions, email: account.email, organization: account.slug };
    },

    async getJsonWebKeySet() {
      const keys = await context.keys.publicKeys();
      return {
        keys: keys.map(({ kid, kty, crv, alg, use, x, y }) => ({ kid, kty, crv, alg, use, x, y })),
      };
    },
  };
}
