import type { DescMessage, Message } from '@bufbuild/protobuf';
import { Code, type ConnectError, type Interceptor } from '@connectrpc/connect';
import { Audience } from '@mad/proto/access';
import { callerKey, END_USER_HEADER, rpcError, type Caller, type UserCaller } from '@mad/rpc';
import { accessRuleOf, SELF, type AccessRule } from './access-rule.ts';
import type { AccessTokenVerifier } from './access-token.ts';
import type { ServiceTokenVerifier } from './service-token.ts';

/** How callers prove who they are. */
export interface AccessOptions {
  verifyUser: AccessTokenVerifier;
  verifyService: ServiceTokenVerifier;
}

/**
 * Lets a call in as its method's access option says, and nobody where it says nothing. Puts the caller where `callerOf(ctx)`
 * finds it. A user's request that names another organization than the token's is NOT_FOUND, as if it did not exist.
 */
export function accessInterceptor(options: AccessOptions): Interceptor {
  return (next) => async (request) => {
    const rule = accessRuleOf(request.method);
    if (!rule) throw denied('CALLER_NOT_ALLOWED', 'the method lets nobody in: it declares no access rule');
    if (rule.audience === Audience.PUBLIC) return next(request);

    const caller = await admit(rule, request.header, options);
    request.contextValues.set(callerKey, caller);
    if (caller.kind !== 'user' || !namesOrganization(request.method.input)) {
      checkPermission(rule, caller);
      return next(request);
    }
    if (request.stream) {
      checkPermission(rule, caller);
      return next({ ...request, message: ofOrganization(request.message, caller) });
    }
    // First whose it is, then what is allowed: a stranger must not learn that the organization exists.
    checkOrganization(request.message, caller);
    checkPermission(rule, caller);
    return next(request);
  };
}

/** Verifies the token for the method's audience. */
async function admit(rule: AccessRule, header: Headers, { verifyUser, verifyService }: AccessOptions): Promise<Caller> {
  const token = bearerOf(header.get('authorization'));
  if (rule.audience === Audience.SERVICE) {
    const caller = await verifyService(token);
    if (!rule.callers.has(caller.service)) {
      throw denied('CALLER_NOT_ALLOWED', `${caller.service} may not call this method`, { service: caller.service });
    }
    const userId = header.get(END_USER_HEADER);
    return userId !== null && isUuid(userId) ? { ...caller, userId } : caller;
  }
  const caller = await verifyUser(token);
  if (rule.audience === Audience.USER && caller.kind !== 'user') {
    throw denied('WRONG_AUDIENCE', "the method is for an organization's users");
  }
  if (rule.audience === Audience.PLATFORM && caller.kind !== 'platform') {
    throw denied('WRONG_AUDIENCE', 'the method is for platform administrators');
  }
  return caller;
}

function checkPermission({ permission }: AccessRule, caller: Caller): void {
  if (caller.kind !== 'user' && caller.kind !== 'platform') return;
  if (permission === SELF || caller.permissions.includes(permission)) return;
  throw denied('PERMISSION_MISSING', `the permission ${permission} is missing`, { permission });
}

/** True where a request has a singular string `org_id`: the variable of its path. */
function namesOrganization(input: DescMessage): boolean {
  return input.field['orgId'] !== undefined;
}

function checkOrganization(message: Message, { orgId: own }: UserCaller): void {
  const { orgId } = message as Message & { orgId?: string };
  if (orgId === own || orgId === undefined || orgId === '') return;
  const text = `organization ${orgId.slice(0, 64)} not found`;
  throw rpcError(Code.NotFound, 'ORGANIZATION_NOT_FOUND', text, { org_id: orgId.slice(0, 64) });
}

async function* ofOrganization<M extends Message>(messages: AsyncIterable<M>, caller: UserCaller): AsyncGenerator<M> {
  for await (const message of messages) {
    checkOrganization(message, caller);
    yield message;
  }
}

/** The token of `Bearer <token>` (RFC 6750; the scheme's case does not matter). */
function bearerOf(authorization: string | null): string {
  const token = authorization !== null && /^bearer /i.test(authorization) ? authorization.slice(7).trim() : '';
  if (token === '') {
    throw rpcError(Code.Unauthenticated, 'TOKEN_MISSING', 'the call needs an authorization header with a bearer token');
  }
  return token;
}

function isUuid(text: string): boolean {
  return /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
}

function denied(
  reason: 'CALLER_NOT_ALLOWED' | 'PERMISSION_MISSING' | 'WRONG_AUDIENCE',
  message: string,
  metadata: Record<string, string> = {},
): ConnectError {
  return rpcError(Code.PermissionDenied, reason, message, metadata);
}
