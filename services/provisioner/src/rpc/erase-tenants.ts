import { Code, type HandlerContext } from '@connectrpc/connect';
import { SECOND_MS, sleep } from '@mad/process';
import type { EraseTenantsRequest } from '@mad/proto/provisioner';
import { rpcError } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import { beginErasure } from '../erasure/begin.ts';
import { answerBy } from '../provisioning/ensure.ts';
import { operationMessage } from './operation.ts';
import { readOperation } from './operation-service.ts';

const RETRY_MS = SECOND_MS;
const POLL_MS = 100;
/** The part of the caller's time that is waited for the end. */
const ANSWER_AT = 0.8;

/** Begins an organization's erasure and waits for its end until the request's deadline. */
export async function eraseTenants(context: ProvisionerContext, request: EraseTenantsRequest, ctx: HandlerContext) {
  const { database, runs, owners, leaseMs } = context;
  const { erasureId, slug, requestedBy } = request;
  const orgId = request.orgId.toLowerCase();
  // Well before the deadline, so that a busy machine does not make the answer late.
  const now = performance.now();
  const until = now + (answerBy(ctx) - now) * ANSWER_AT;
  const params = { erasure_id: erasureId.toLowerCase(), slug, requested_by: requestedBy.toLowerCase() };
  const options = { leaseMs, actor: { actorKind: 'platform', userId: requestedBy } as const, schemas: owners.schemas };
  for (;;) {
    const { operationId, held } = await database.asSystem((tx) => beginErasure(tx, orgId, params, options));
    if (held !== undefined) void runs.carryOut(held);
    const over = (): boolean => ctx.signal.aborted || performance.now() >= until;
    while (operationId !== undefined) {
      const row = await database.asSystem((tx) => readOperation(tx, operationId));
      if (row.state !== 'running' || over()) return { operation: operationMessage(row) };
      await sleep(POLL_MS, ctx.signal).catch(() => undefined);
    }
    if (over()) {
      const message = 'a database of the organization is busy with something else: try again';
      const about = { org_id: orgId };
      throw rpcError(Code.Unavailable, 'TENANT_PROVISIONING', message, about, { retryAfterMs: RETRY_MS });
    }
    await sleep(POLL_MS, ctx.signal).catch(() => undefined);
  }
}
