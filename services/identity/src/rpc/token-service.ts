import { randomBytes } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { Code, type ServiceImpl } from '@connectrpc/connect';
import { DAY_MS, uuidv7 } from '@mad/process';
import { CreateTokenResponseSchema, TokenSchema, TokenService, type Token } from '@mad/proto/identity';
import { nextPageToken, notFound, pageOf, requireName, rpcError, userOf } from '@mad/rpc';
import { recordAudit } from '../audit/record.ts';
import type { IdentityContext } from '../context.ts';
import type { TokenRow } from '../db/entities/credential.ts';
import { formatApiToken, tokenPrefix } from '../domain/api-token.ts';
import { exceeding } from '../domain/permissions.ts';
import { memberAccess, requireHeld } from '../membership.ts';
import { changeOrganization, readOrganization } from '../organization-scope.ts';
import { requireRoom } from '../quota-limit.ts';
import { newSecret } from '../secrets/master-key.ts';

const TOKEN_COLUMNS = 'token_id, name, prefix, scopes, expires_at, last_used_at, revoked, created_at';
const DEFAULT_DAYS = 90;

function tokenMessage(row: TokenRow): Token {
  return create(TokenSchema, {
    tokenId: row.token_id,
    name: row.name,
    prefix: `mad_${row.prefix}`,
    scopes: row.scopes,
    expireTime: timestampFromDate(row.expires_at),
    lastUseTime: row.last_used_at === null ? undefined : timestampFromDate(row.last_used_at),
    revoked: row.revoked,
    createTime: timestampFromDate(row.created_at),
  });
}

/**
 * The scopes to keep. Without any asked for, the token is the person's in full only where the caller is: a program
 * with a limited token must not make itself an unlimited one.
 */
function keptScopes(asked: readonly string[], held: readonly string[], persons: readonly string[]): string[] {
  if (asked.length > 0) return [...asked].sort();
  return exceeding(persons, held).length === 0 ? [] : [...held].sort();
}

/** API tokens: long-lived credentials of a person for programs. */
export function tokenService(context: IdentityContext): ServiceImpl<typeof TokenService> {
  return {
    async createToken(request, ctx) {
      requireName('name', request.name);
      return changeOrganization(context, ctx, TokenService.method.createToken, request, async (tx, orgId) => {
        const caller = userOf(ctx);
        requireHeld(caller, request.scopes);
        const access = await memberAccess(tx, orgId, caller.userId);
        if (access === undefined) {
          throw rpcError(
            Code.FailedPrecondition,
            'STATE_CONFLICT',
            'only a member can have tokens of the organization',
          );
        }
        const live = 'SELECT count(*) FROM identity.tokens WHERE org_id = $1 AND NOT revoked AND expires_at > now()';
        await requireRoom(tx, orgId, 'max_tokens', live);
        const token = { prefix: tokenPrefix(randomBytes(10)), secret: newSecret() };
        const expiresAt = new Date(Date.now() + (request.days || DEFAULT_DAYS) * DAY_MS);
        const [row] = await tx.query<TokenRow>(
          `INSERT INTO identity.tokens (token_id, user_id, org_id, name, prefix, digest, scopes, expires_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING ${TOKEN_COLUMNS}`,
          [
            uuidv7(),
            caller.userId,
            orgId,
            request.name,
            token.prefix,
            context.master.tokenDigest(token.secret),
            keptScopes(request.scopes, caller.permissions, access.permissions),
            expiresAt,
          ],
        );
        await recordAudit(tx, ctx, orgId, {
          action: 'tokens.create',
          entityType: 'token',
          entityId: row!.token_id,
          requestId: request.requestId,
          metadata: { name: request.name, scopes: row!.scopes },
        });
        return create(CreateTokenResponseSchema, { token: tokenMessage(row!), secret: formatApiToken(token) });
      });
    },

    async listTokens(request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const { userId } = userOf(ctx);
        const query = { list: 'tokens', orgId, userId };
        const page = pageOf(request, { query, isCursor: (cursor) => typeof cursor === 'string' });
        const rows = await tx.query<TokenRow>(
          `SELECT ${TOKEN_COLUMNS} FROM identity.tokens
           WHERE org_id = $1 AND user_id = $2 AND ($3::uuid IS NULL OR token_id < $3::uuid)
           ORDER BY token_id DESC LIMIT $4`,
          [orgId, userId, page.cursor ?? null, page.size + 1],
        );
        const shown = rows.slice(0, page.size);
        return {
          tokens: shown.map(tokenMessage),
          nextPageToken: rows.length > page.size ? nextPageToken(query, shown.at(-1)!.token_id) : '',
        };
      });
    },

    async revokeToken(request, ctx) {
      // Revoking twice is revoking once, so no request id is needed.
      const revoke = { ...request, requestId: '' };
      return changeOrganization(context, ctx, TokenService.method.revokeToken, revoke, async (tx, orgId) => {
        const [before] = await tx.query<{ revoked: boolean }>(
          `SELECT revoked FROM identity.tokens WHERE org_id = $1 AND user_id = $2 AND token_id = $3 FOR UPDATE`,
          [orgId, userOf(ctx).userId, request.tokenId],
        );
        if (before === undefined) throw notFound('token', request.tokenId);
        if (!before.revoked) {
          await tx.execute('UPDATE identity.tokens SET revoked = true WHERE org_id = $1 AND token_id = $2', [
            orgId,
            request.tokenId,
          ]);
          await recordAudit(tx, ctx, orgId, {
            action: 'tokens.delete',
            entityType: 'token',
            entityId: request.tokenId,
          });
        }
        return create(TokenService.method.revokeToken.output);
      });
    },
  };
}
