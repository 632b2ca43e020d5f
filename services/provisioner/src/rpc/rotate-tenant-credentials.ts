import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { Code, type HandlerContext } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { SECOND_MS, sleep } from '@mad/process';
import {
  RotateTenantCredentialsResponseSchema,
  type RotateTenantCredentialsRequest,
  type RotateTenantCredentialsResponse,
} from '@mad/proto/provisioner';
import { actorOf, callerOf, notFound, rpcError } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import type { OperationRow } from '../db/entities/operation.ts';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import type { TenantKey } from '../domain/plan.ts';
import { isUsable } from '../domain/tenant-state.ts';
import type { Held } from '../operations/lease.ts';
import { answerBy } from '../provisioning/ensure.ts';
import { lockTenant } from '../operations/lock-tenant.ts';
import { beginRotation } from '../rotation/begin.ts';
import { tenantMessage } from './messages.ts';

const RETRY_MS = SECOND_MS;
const POLL_MS = 50;

/**
 * Rotates a tenant's login, or waits for the rotation that a request with this id began, until the request's deadline;
 * the work goes on without the request. Throws NOT_FOUND; FAILED_PRECONDITION when the tenant is not in use or the
 * rotation failed; UNAVAILABLE while something else is done with the tenant; ABORTED when the rotation was cancelled.
 */
export async function rotateTenantCredentials(
  context: ProvisionerContext,
  { orgId, schema, requestId }: RotateTenantCredentialsRequest,
  ctx: HandlerContext,
): Promise<RotateTenantCredentialsResponse> {
  const { database, runs } = context;
  const until = answerBy(ctx);
  const key = { orgId: orgId.toLowerCase(), schema };
  const held = await database.asSystem((tx) => beginUnlessBegun(context, tx, key, requestId, ctx));
  if (held !== undefined) {
    const waited = new AbortController();
    const over = AbortSignal.any([ctx.signal, waited.signal]);
    const limit = sleep(Math.max(0, until - performance.now()), over).catch(() => undefined);
    await Promise.race([runs.carryOut(held), limit]);
    waited.abort();
  }
  for (;;) {
    const operation = await database.asSystem((tx) => rotationOf(tx, key, requestId));
    if (operation?.state === 'succeeded') return answer(context, key, operation.operation_id);
    if (operation?.state === 'failed') {
      throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', `the rotation failed: ${operation.error}`, { schema });
    }
    if (operation?.state === 'cancelled') {
      throw rpcError(Code.Aborted, 'STATE_CONFLICT', 'the rotation was cancelled', { schema });
    }
    if (ctx.signal.aborted || performance.now() >= until) throw busy(key, 'the rotation goes on: ask again');
    // Nobody may be at it any more: then it is ours to go on with.
    await runs.resume(key);
    await sleep(POLL_MS, ctx.signal).catch(() => undefined);
  }
}

async function beginUnlessBegun(
  { leaseMs }: ProvisionerContext,
  tx: Tx,
  key: TenantKey,
  requestId: string,
  ctx: HandlerContext,
): Promise<Held | undefined> {
  const row = await lockTenant(tx, key);
  if (row === undefined) throw notFound('tenant', key.schema);
  if ((await rotationOf(tx, key, requestId)) !== undefined) return undefined;
  if (row.step !== null) throw busy(key, 'the tenant is busy: try again');
  if (!isUsable(row.state)) {
    const about = { org_id: key.orgId, schema: key.schema, state: row.state };
    const suspended = row.state === 'suspended';
    throw rpcError(
      Code.FailedPrecondition,
      suspended ? 'TENANT_SUSPENDED' : 'TENANT_NOT_PROVISIONED',
      suspended ? 'the organization is suspended: none of its logins gets in' : 'the tenant has no database',
      about,
    );
  }
  return beginRotation(tx, key, {
    leaseMs,
    actor: actorOf(callerOf(ctx)),
    params: { request_id: requestId.toLowerCase() },
  });
}

async function rotationOf(
  tx: Tx,
  { orgId, schema }: TenantKey,
  requestId: string,
): Promise<Pick<OperationRow, 'operation_id' | 'state' | 'error'> | undefined> {
  const [row] = await tx.query<Pick<OperationRow, 'operation_id' | 'state' | 'error'>>(
    `SELECT operation_id, state, error FROM provisioner.operations
     WHERE org_id = $1 AND schema = $2 AND kind = 'rotate' AND params ->> 'request_id' = $3`,
    [orgId, schema, requestId.toLowerCase()],
  );
  return row;
}

async function answer(
  { database }: ProvisionerContext,
  { orgId, schema }: TenantKey,
  operationId: string,
): Promise<RotateTenantCredentialsResponse> {
  const [row] = await database.asSystem((tx) =>
    tx.query<TenantRow & { login: string; retire_at: Date | null }>(
      `SELECT ${TENANT_COLUMNS},
         (SELECT role_name FROM provisioner.tenant_credentials c
          WHERE c.org_id = t.org_id AND c.schema = t.schema AND active) AS login,
         (SELECT retire_at FROM provisioner.tenant_credentials c
          WHERE c.org_id = t.org_id AND c.schema = t.schema AND NOT active) AS retire_at
       FROM provisioner.tenants t WHERE org_id = $1 AND schema = $2`,
      [orgId, schema],
    ),
  );
  const { login, retire_at: retireAt } = row!;
  return create(RotateTenantCredentialsResponseSchema, {
    tenant: tenantMessage(row!),
    operationId,
    login,
    retireTime: retireAt === null ? undefined : timestampFromDate(retireAt),
  });
}

function busy({ orgId, schema }: TenantKey, message: string): Error {
  const options = { retryAfterMs: RETRY_MS };
  return rpcError(Code.Unavailable, 'TENANT_PROVISIONING', message, { org_id: orgId, schema }, options);
}
