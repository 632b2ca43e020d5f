import type { HandlerContext } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { SECOND_MS, sleep } from '@mad/process';
import { actorOf, callerOf, deadlineOf, type Actor } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import type { TenantKey } from '../domain/plan.ts';
import { ensureAnswer } from '../domain/tenant-state.ts';
import { begin, type Held } from '../operations/lease.ts';
import { lockTenant } from '../operations/lock-tenant.ts';
import { prepareDataKey, type PreparedKey } from '../secrets/data-keys.ts';
import { erased, insertTenant } from './placing.ts';

/** Left of the caller's deadline for the answer itself. */
const ANSWER_MS = 50;
const POLL_MS = 50;
const DEFAULT_WAIT_MS = 25 * SECOND_MS;

/** When a request must have its answer, in the milliseconds of `performance.now()`. */
export function answerBy(ctx: HandlerContext): number {
  return performance.now() + (deadlineOf(ctx) ?? DEFAULT_WAIT_MS) - ANSWER_MS;
}

/**
 * Makes the tenant unless it exists and waits for it until the request's deadline; the work goes on without the
 * request. Returns the tenant as it is then. Throws when it was erased, or when no server takes it.
 */
export async function ensureTenant(
  context: ProvisionerContext,
  key: TenantKey,
  region: string,
  ctx: HandlerContext,
): Promise<TenantRow> {
  const until = answerBy(ctx);
  const actor = actorOf(callerOf(ctx));
  const { database, master } = context;
  const exists = await database.asSystem((tx) =>
    tx.execute('SELECT FROM provisioner.tenants WHERE org_id = $1 AND schema = $2', [key.orgId, key.schema]),
  );
  // A key service is asked before servers are locked.
  const prepared = exists > 0 ? undefined : await prepareDataKey((fn) => database.asSystem(fn), master, key.orgId);
  const { row, held } = await database.asSystem((tx) => take(context, tx, key, prepared, region, actor));
  if (ensureAnswer(row.state) === 'exists') return row;
  const run = held === undefined ? undefined : context.runs.carryOut(held);
  return waitFor(context, key, run, until, ctx.signal);
}

async function take(
  { master, leaseMs }: ProvisionerContext,
  tx: Tx,
  key: TenantKey,
  prepared: PreparedKey | undefined,
  region: string,
  actor: Actor,
): Promise<{ row: TenantRow; held?: Held }> {
  const request = { actor };
  const operationId = await insertTenant(tx, master, key, prepared, region, request);
  const row = await lockTenant(tx, key);
  if (row === undefined) throw new Error('the tenant vanished');
  if (ensureAnswer(row.state) === 'gone') throw erased(key);
  if (operationId !== undefined)
    return { row, held: await begin(tx, key, 'provision', { ...request, leaseMs, operationId }) };
  if (row.state !== 'failed') return { row };
  await tx.execute(`UPDATE provisioner.tenants SET state = 'creating' WHERE org_id = $1 AND schema = $2`, [
    key.orgId,
    key.schema,
  ]);
  return {
    row: { ...row, state: 'creating' },
    held: await begin(tx, key, 'provision', { ...request, leaseMs, step: row.step ?? undefined }),
  };
}

/** Waits for the run, ours or another process's. */
async function waitFor(
  { database, runs }: ProvisionerContext,
  key: TenantKey,
  run: Promise<unknown> | undefined,
  until: number,
  signal: AbortSignal,
): Promise<TenantRow> {
  const read = async (): Promise<TenantRow> => {
    const [row] = await database.asSystem((tx) =>
      tx.query<TenantRow>(`SELECT ${TENANT_COLUMNS} FROM provisioner.tenants WHERE org_id = $1 AND schema = $2`, [
        key.orgId,
        key.schema,
      ]),
    );
    return row!;
  };
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(), Math.max(0, until - performance.now()));
  const over = AbortSignal.any([signal, timeout.signal]);
  try {
    if (run !== undefined) await Promise.race([run, sleep(until - performance.now(), over).catch(() => undefined)]);
    let row = await read();
    while (!over.aborted && (row.state === 'creating' || row.state === 'requested')) {
      // Nobody may be at it any more: then it is ours to go on with.
      await Promise.race([runs.resume(key), sleep(POLL_MS, over).catch(() => undefined)]);
      await sleep(POLL_MS, over).catch(() => undefined);
      row = await read();
    }
    return row;
  } finally {
    clearTimeout(timer);
    timeout.abort();
  }
}
