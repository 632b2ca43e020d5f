import { create } from '@bufbuild/protobuf';
import { Code, type HandlerContext, type ServiceImpl } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import {
  AddFirstMemberResponseSchema,
  AddMemberResponseSchema,
  MemberService,
  RemoveMemberResponseSchema,
  UpdateMemberResponseSchema,
} from '@mad/proto/identity';
import { callerOf, invalid, nextPageToken, notFound, pageOf, requireName, rpcError } from '@mad/rpc';
import { recordAudit } from '../audit/record.ts';
import type { IdentityContext } from '../context.ts';
import { requireHeld } from '../membership.ts';
import { changeOrganization, changeOrganizationAsPlatform, readOrganization } from '../organization-scope.ts';
import { requireRoom } from '../quota-limit.ts';
import { hashPassword, MIN_PASSWORD_LENGTH } from '../secrets/passwords.ts';
import { findMember, listMembers, memberMessage, type MemberCursor, type MemberRow } from './member.ts';
import { findRoles, type RoleWithPermissions } from './role.ts';

interface NewMember {
  requestId: string;
  email: string;
  displayName: string;
  roles: string[];
}

/** The hash of a first password; null where none was given. Made outside the transaction: it takes 20 ms. */
async function firstPassword(password: string): Promise<string | null> {
  if (password === '') return null;
  if (password.length < MIN_PASSWORD_LENGTH)
    throw invalid('password', `must have at least ${MIN_PASSWORD_LENGTH} characters`);
  return hashPassword(password);
}

async function setRoles(tx: Tx, orgId: string, userId: string, roles: readonly RoleWithPermissions[]): Promise<void> {
  await tx.execute('DELETE FROM identity.membership_roles WHERE org_id = $1 AND user_id = $2', [orgId, userId]);
  await tx.execute(
    `INSERT INTO identity.membership_roles (user_id, org_id, role_id) SELECT $2, $1, unnest($3::uuid[])`,
    [orgId, userId, roles.map(({ role_id }) => role_id)],
  );
}

/** Adds a person; the account is made when the address is new. Throws ALREADY_EXISTS when they are a member. */
async function addMember(
  tx: Tx,
  ctx: HandlerContext,
  orgId: string,
  member: NewMember,
  hashed: string | null,
): Promise<MemberRow> {
  const roles = await findRoles(tx, orgId, member.roles);
  requireHeld(
    callerOf(ctx),
    roles.flatMap(({ permissions }) => permissions),
  );
  const countMembers = 'SELECT count(*) FROM identity.memberships WHERE org_id = $1';
  await requireRoom(tx, orgId, 'max_members', countMembers);
  const [account] = await tx.query<{ user_id: string }>(
    'SELECT identity.ensure_account($1, $2::citext, $3, $4) AS user_id',
    [uuidv7(), member.email, member.displayName, hashed],
  );
  const userId = account!.user_id;
  const added = await tx.execute(
    'INSERT INTO identity.memberships (user_id, org_id) VALUES ($1, $2) ON CONFLICT DO NOTHING',
    [userId, orgId],
  );
  if (added === 0) {
    throw rpcError(Code.AlreadyExists, 'ALREADY_EXISTS', 'email: is a member already', { field: 'email' });
  }
  await setRoles(tx, orgId, userId, roles);
  await recordAudit(tx, ctx, orgId, {
    action: 'members.create',
    entityType: 'user',
    entityId: userId,
    requestId: member.requestId,
    metadata: { roles: member.roles },
  });
  return (await findMember(tx, orgId, userId))!;
}

/** Throws when nobody but this person can administer the organization. */
async function requireAnotherAdmin(tx: Tx, orgId: string, userId: string): Promise<void> {
  // The organization's row is the lock: two administrators removing each other at once would leave none.
  await tx.query('SELECT 1 FROM identity.organizations WHERE org_id = $1 FOR NO KEY UPDATE', [orgId]);
  const others = await tx.query(
    `SELECT 1 FROM identity.membership_roles mr JOIN identity.roles r ON r.role_id = mr.role_id
     WHERE mr.org_id = $1 AND mr.user_id <> $2 AND r.org_id IS NULL AND r.name = 'admin' LIMIT 1`,
    [orgId, userId],
  );
  if (others.length > 0) return;
  throw rpcError(Code.FailedPrecondition, 'IN_USE', 'the organization would be left without an administrator');
}

async function requireMember(tx: Tx, orgId: string, userId: string): Promise<MemberRow> {
  const member = await findMember(tx, orgId, userId);
  if (member === undefined) throw notFound('member', userId);
  return member;
}

function isMemberCursor(cursor: unknown): cursor is MemberCursor {
  return Array.isArray(cursor) && cursor.length === 2 && cursor.every((part) => typeof part === 'string');
}

/** The people of an organization and their roles. */
export function memberService(context: IdentityContext): ServiceImpl<typeof MemberService> {
  return {
    async addMember(request, ctx) {
      requireName('display_name', request.displayName, { mayBeEmpty: true });
      const hashed = await firstPassword(request.password);
      return changeOrganization(context, ctx, MemberService.method.addMember, request, async (tx, orgId) => {
        const row = await addMember(tx, ctx, orgId, request, hashed);
        return create(AddMemberResponseSchema, { member: memberMessage(row) });
      });
    },

    async addFirstMember(request, ctx) {
      requireName('display_name', request.displayName, { mayBeEmpty: true });
      const hashed = await firstPassword(request.password);
      const roles = request.roles.length === 0 ? ['admin'] : request.roles;
      const method = MemberService.method.addFirstMember;
      return changeOrganizationAsPlatform(context, ctx, method, request, async (tx) => {
        const row = await addMember(tx, ctx, request.orgId, { ...request, roles }, hashed);
        return create(AddFirstMemberResponseSchema, { member: memberMessage(row) });
      });
    },

    async getMember(request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => ({
        member: memberMessage(await requireMember(tx, orgId, request.userId)),
      }));
    },

    async listMembers(request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const query = { list: 'members', orgId };
        const page = pageOf(request, { query, isCursor: isMemberCursor });
        const rows = await listMembers(tx, orgId, page.cursor as MemberCursor | undefined, page.size + 1);
        const shown = rows.slice(0, page.size);
        const last = shown.at(-1);
        const more = rows.length > page.size && last !== undefined;
        return {
          members: shown.map(memberMessage),
          nextPageToken: more ? nextPageToken(query, [last.created_at.toISOString(), last.user_id]) : '',
        };
      });
    },

    async updateMember(request, ctx) {
      return changeOrganization(context, ctx, MemberService.method.updateMember, request, async (tx, orgId) => {
        const member = await requireMember(tx, orgId, request.userId);
        const before = await findRoles(tx, orgId, member.roles);
        const after = await findRoles(tx, orgId, request.roles);
        const changed = [
          ...after.filter(({ name }) => !member.roles.includes(name)),
          ...before.filter(({ name }) => !request.roles.includes(name)),
        ];
        requireHeld(
          callerOf(ctx),
          changed.flatMap(({ permissions }) => permissions),
        );
        if (member.roles.includes('admin') && !request.roles.includes('admin')) {
          await requireAnotherAdmin(tx, orgId, request.userId);
        }
        await setRoles(tx, orgId, request.userId, after);
        await tx.execute('UPDATE identity.memberships SET version = version + 1 WHERE org_id = $1 AND user_id = $2', [
          orgId,
          request.userId,
        ]);
        await recordAudit(tx, ctx, orgId, {
          action: 'members.update',
          entityType: 'user',
          entityId: request.userId,
          requestId: request.requestId,
          metadata: { before: member.roles, after: request.roles },
        });
        const row = await requireMember(tx, orgId, request.userId);
        return create(UpdateMemberResponseSchema, { member: memberMessage(row) });
      });
    },

    async removeMember(request, ctx) {
      return changeOrganization(context, ctx, MemberService.method.removeMember, request, async (tx, orgId) => {
        const { userId, requestId } = request;
        const member = await requireMember(tx, orgId, userId);
        const roles = await findRoles(tx, orgId, member.roles);
        requireHeld(
          callerOf(ctx),
          roles.flatMap(({ permissions }) => permissions),
        );
        if (member.roles.includes('admin')) await requireAnotherAdmin(tx, orgId, userId);
        const whose = 'WHERE org_id = $1 AND user_id = $2';
        await tx.execute(`UPDATE identity.user_sessions SET revoked_at = now() ${whose} AND revoked_at IS NULL`, [
          orgId,
          userId,
        ]);
        await tx.execute(`UPDATE identity.tokens SET revoked = true ${whose}`, [orgId, userId]);
        await tx.execute(`DELETE FROM identity.memberships ${whose}`, [orgId, userId]);
        const fact = { action: 'members.delete', entityType: 'user', entityId: userId, requestId };
        await recordAudit(tx, ctx, orgId, fact);
        return create(RemoveMemberResponseSchema);
      });
    },
  };
}
