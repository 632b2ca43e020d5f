import type { DescMessage, DescMethod, MessageShape } from '@bufbuild/protobuf';
import { Code, type ConnectError, type HandlerContext } from '@connectrpc/connect';
import { idempotent, type Tx } from '@mad/postgres';
import { callerOf, orgOf, rpcError, type Caller } from '@mad/rpc';
import type { IdentityContext } from './context.ts';
import { allowedUse, mayBeErased, type OrganizationStatusName } from './domain/organization-status.ts';

/** NOT_FOUND for an organization that is not there, or not the caller's. */
export function organizationNotFound(orgId: string): ConnectError {
  return rpcError(Code.NotFound, 'ORGANIZATION_NOT_FOUND', `organization ${orgId} not found`, { org_id: orgId });
}

/** FAILED_PRECONDITION for an organization that nobody may use now. */
export function organizationSuspended(orgId: string): ConnectError {
  return rpcError(Code.FailedPrecondition, 'TENANT_SUSPENDED', 'the organization is suspended', { org_id: orgId });
}

/** Throws unless members may use an organization of this status in this way. */
export function requireUse(orgId: string, status: OrganizationStatusName, use: 'everything' | 'reading'): void {
  const allowed = allowedUse(status);
  if (allowed === 'nothing') throw organizationSuspended(orgId);
  if (use === 'everything' && allowed === 'reading') {
    throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', 'the organization is read-only', { org_id: orgId });
  }
}

async function requireOrganization(tx: Tx, orgId: string, use: 'everything' | 'reading'): Promise<void> {
  const [row] = await tx.query<{ status: OrganizationStatusName }>(
    'SELECT status FROM identity.organizations WHERE org_id = $1',
    [orgId],
  );
  if (row === undefined) throw organizationNotFound(orgId);
  requireUse(orgId, row.status, use);
}

/** Reads within the caller's organization; refused when it is suspended. */
export function readOrganization<T>(
  context: IdentityContext,
  ctx: HandlerContext,
  fn: (tx: Tx, orgId: string) => Promise<T>,
): Promise<T> {
  const orgId = orgOf(ctx);
  return context.database.inOrg(
    orgId,
    async (tx) => {
      await requireOrganization(tx, orgId, 'reading');
      return fn(tx, orgId);
    },
    { readOnly: true, signal: ctx.signal },
  );
}

/** Who made a request, for telling a repeat from another person's request with the same id. */
export function requester(caller: Caller): string {
  if (caller.kind === 'public') return 'public';
  return caller.kind === 'service' ? `service ${caller.service}` : `${caller.kind} ${caller.userId}`;
}

/** Changes the caller's organization, once for each request id; refused when it is suspended or read-only. */
export function changeOrganization<I extends DescMessage, O extends DescMessage>(
  context: IdentityContext,
  ctx: HandlerContext,
  method: DescMethod & { input: I; output: O },
  request: MessageShape<I> & { requestId: string },
  fn: (tx: Tx, orgId: string) => Promise<MessageShape<O>>,
): Promise<MessageShape<O>> {
  const orgId = orgOf(ctx);
  const caller = requester(callerOf(ctx));
  return context.database.inOrg(
    orgId,
    async (tx) => {
      await requireOrganization(tx, orgId, 'everything');
      return idempotent(tx, { schema: 'identity', orgId, method, request, caller }, () => fn(tx, orgId));
    },
    { signal: ctx.signal },
  );
}

/** Changes the organization that a platform administrator names, once for each request id, unless it is being erased. */
export function changeOrganizationAsPlatform<I extends DescMessage, O extends DescMessage>(
  context: IdentityContext,
  ctx: HandlerContext,
  method: DescMethod & { input: I; output: O },
  request: MessageShape<I> & { orgId: string; requestId: string },
  fn: (tx: Tx) => Promise<MessageShape<O>>,
): Promise<MessageShape<O>> {
  const { orgId } = request;
  const caller = requester(callerOf(ctx));
  return context.database.inOrg(
    orgId,
    async (tx) => {
      const [found] = await tx.query<{ status: OrganizationStatusName }>(
        'SELECT status FROM identity.organizations WHERE org_id = $1',
        [orgId],
      );
      if (found === undefined) throw organizationNotFound(orgId);
      const { status } = found;
      return idempotent(tx, { schema: 'identity', orgId, method, request, caller }, () => {
        if (mayBeErased(status)) return fn(tx);
        const message = status === 'erased' ? 'the organization was erased' : 'the organization is being erased';
        throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', message, { org_id: orgId, status });
      });
    },
    { signal: ctx.signal },
  );
}
