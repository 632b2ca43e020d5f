import { Code, type HandlerContext } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { SECOND_MS, sleep } from '@mad/process';
import { actorOf, callerOf, rpcError, type Actor } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import { freezeAnswer, resumeAnswer, suspendAnswer, type SwitchAnswer } from '../domain/tenant-state.ts';
import { appendChange } from './changes.ts';
import { answerBy } from './ensure.ts';
import { mayTakeLong, PLANS, type OperationKind } from '../domain/plan.ts';
import { begin, type Held } from '../operations/lease.ts';
import { Gone } from '../operations/stops.ts';

const RETRY_MS = SECOND_MS;
const POLL_MS = 50;
const KINDS_THAT_YIELD = (Object.keys(PLANS) as OperationKind[]).filter(mayTakeLong);

type Direction = 'suspend' | 'freeze' | 'resume';

const ANSWERS = { suspend: suspendAnswer, freeze: freezeAnswer, resume: resumeAnswer };
/** What routers are told first; of a resumption they hear at its end. */
const STATES = { suspend: 'suspended', freeze: 'read_only', resume: undefined };

/**
 * Suspends, makes read-only or resumes every tenant of an organization and waits until the servers enforce it. Routers are told first:
 * the state and the generation change at once, the databases' rights within the same second. Throws UNAVAILABLE while
 * a tenant is being made or migrated; a repeat finishes what an interrupted request began.
 */
export async function switchTenants(
  context: ProvisionerContext,
  orgId: string,
  direction: Direction,
  ctx: HandlerContext,
): Promise<TenantRow[]> {
  const until = answerBy(ctx);
  const actor = actorOf(callerOf(ctx));
  const read = (tx: Tx, lock: string): Promise<TenantRow[]> =>
    tx.query<TenantRow>(`SELECT ${TENANT_COLUMNS} FROM provisioner.tenants WHERE org_id = $1 ORDER BY schema ${lock}`, [
      orgId,
    ]);
  for (;;) {
    const { waits, held } = await context.database.asSystem(async (tx) => {
      const rows = await read(tx, 'FOR UPDATE');
      return turn(context, tx, rows, direction, actor);
    });
    const outcomes = await Promise.all(held.map((one) => context.runs.carryOut(one)));
    const failed = outcomes.find(({ state }) => state === 'failed');
    if (failed?.state === 'failed') throw notYet(orgId, failed.error);
    if (!waits && outcomes.every(({ state }) => state === 'done'))
      return context.database.asSystem((tx) => read(tx, ''));
    if (ctx.signal.aborted || performance.now() >= until) throw notYet(orgId);
    const rows = await context.database.asSystem((tx) => read(tx, ''));
    await Promise.all(rows.map(({ schema }) => context.runs.resume({ orgId, schema })));
    await sleep(POLL_MS, ctx.signal).catch(() => undefined);
  }
}

/** Changes what can be changed now; `waits` when something else must end first. */
async function turn(
  { leaseMs }: ProvisionerContext,
  tx: Tx,
  rows: readonly TenantRow[],
  direction: Direction,
  actor: Actor,
): Promise<{ waits: boolean; held: Held[] }> {
  const answers = rows.map(({ state, step }): SwitchAnswer => ANSWERS[direction](state, step));
  const held: Held[] = [];
  for (const [index, row] of rows.entries()) {
    // Nobody works in what is shut, and it may be lost: then there is nothing to open before it is restored.
    const restoring = direction === 'resume' || row.state === 'suspended';
    if (answers[index] === 'wait') await askToGiveWay(tx, row, restoring ? ['restore'] : []);
    if (answers[index] !== 'switch') continue;
    const key = { orgId: row.org_id, schema: row.schema };
    held.push(await begin(tx, key, direction, { leaseMs, actor }));
    const state = STATES[direction];
    // A suspended tenant that is to be read again stays shut until nothing can be written any more.
    if (state === undefined || row.state === 'suspended') continue;
    await tx.execute(
      'UPDATE provisioner.tenants SET state = $3, generation = generation + 1 WHERE org_id = $1 AND schema = $2',
      [key.orgId, key.schema, state],
    );
    await appendChange(tx, key);
  }
  return { waits: answers.some((answer) => answer === 'wait' || answer === 'finish'), held };
}

/** What may take hours is given up rather than waited for; it is asked for again by whoever needs it. */
export async function askToGiveWay(
  tx: Tx,
  { operation_id: operationId }: TenantRow,
  except: readonly OperationKind[] = [],
): Promise<void> {
  await tx.execute(
    `UPDATE provisioner.operations SET cancel_requested_at = coalesce(cancel_requested_at, now()), updated_at = now(),
       cause = CASE WHEN cancel_requested_at IS NULL THEN 'gives_way' ELSE cause END
     WHERE operation_id = $1 AND state = 'running' AND kind = ANY ($2) AND kind <> ALL ($3)`,
    [operationId, KINDS_THAT_YIELD, except],
  );
}

function notYet(orgId: string, cause?: unknown): Error {
  if (cause instanceof Gone) {
    return rpcError(Code.FailedPrecondition, 'DATABASE_UNAVAILABLE', cause.message, { org_id: orgId }, { cause });
  }
  const message = 'the tenant is busy with something else, or its server does not answer: try again';
  return rpcError(
    Code.Unavailable,
    'TENANT_PROVISIONING',
    message,
    { org_id: orgId },
    { retryAfterMs: RETRY_MS, cause },
  );
}
