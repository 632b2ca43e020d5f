import type { DescMessage, DescMethod, MessageShape } from '@bufbuild/protobuf';
import type { HandlerContext } from '@connectrpc/connect';
import { idempotent, type Tx } from '@mad/postgres';
import { userOf } from '@mad/rpc';
import type { CatalogContext } from './context.ts';
import type { DescribedOrganization } from './organizations.ts';

/** Reads within the caller's organization; refused when it is suspended. */
export async function readOrganization<T>(
  context: CatalogContext,
  ctx: HandlerContext,
  fn: (tx: Tx, orgId: string) => Promise<T>,
): Promise<T> {
  const { orgId } = userOf(ctx);
  await context.organizations.require(orgId, 'reading');
  return context.database.inOrg(orgId, (tx) => fn(tx, orgId), { readOnly: true, signal: ctx.signal });
}

/** What a change knows of who asked for it. */
export interface Change {
  orgId: string;
  userId: string;
  organization: DescribedOrganization;
}

/** Changes the caller's organization, once for each request id; refused when it is suspended or read-only. */
export async function changeOrganization<I extends DescMessage, O extends DescMessage>(
  context: CatalogContext,
  ctx: HandlerContext,
  method: DescMethod & { input: I; output: O },
  request: MessageShape<I> & { requestId: string },
  fn: (tx: Tx, change: Change) => Promise<MessageShape<O>>,
): Promise<MessageShape<O>> {
  const { orgId, userId } = userOf(ctx);
  const organization = await context.organizations.require(orgId, 'writing');
  const key = { schema: 'catalog', orgId, method, request, caller: `user ${userId}` };
  return context.database.inOrg(orgId, (tx) => idempotent(tx, key, () => fn(tx, { orgId, userId, organization })), {
    signal: ctx.signal,
  });
}
