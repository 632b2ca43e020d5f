import type { Boss, Database, Tx } from '@mad/postgres';
import type { Actor } from '@mad/rpc';
import type { OperationRow, OperationState } from '../db/entities/operation.ts';
import type { OperationCause } from '../domain/operation-cause.ts';
import { PLANS, stateAfter } from '../domain/plan.ts';
import { giveBack } from '../erasure/begin.ts';
import { recordAudit } from '../provisioning/audit.ts';
import { appendChange } from '../provisioning/changes.ts';
import type { Findings, Subject } from '../provisioning/steps.ts';
import { lockHeld, type Held } from './lease.ts';

/** What the endings of operations write to. */
export interface EndingContext {
  database: Database;
  boss: Boss;
}

/** The operation's effect on the tenant, its cleanup records, the change log and the audit log: all or nothing. */
export async function succeed(
  { database, boss }: EndingContext,
  held: Held,
  { tenant }: Subject,
  findings: Findings,
): Promise<void> {
  const { orgId, schema, kind, params } = held;
  const { keepsObjects = false, announces } = PLANS[kind];
  const { schemaVersion, fingerprint, applied = [] } = findings;
  await database.asSystem(async (tx) => {
    await lockHeld(tx, held);
    await tx.execute(
      `UPDATE provisioner.tenants SET step = NULL, step_owner = NULL, step_lease_until = NULL, last_error = '',
         state = coalesce($3, state), generation = generation + CASE WHEN $3 <> state THEN 1 ELSE 0 END,
         ready_at = coalesce(ready_at, now()), schema_version = coalesce($4, schema_version),
         fingerprint = coalesce($5, fingerprint), updated_at = now()
       WHERE org_id = $1 AND schema = $2`,
      [orgId, schema, stateAfter(kind, params) ?? null, schemaVersion ?? null, fingerprint ?? null],
    );
    const actor = await end(tx, held, 'succeeded');
    if (keepsObjects) {
      // What was made is the tenant's now. Records of templates stay: theirs is another story.
      await tx.execute(
        `DELETE FROM provisioner.cleanup_records
         WHERE org_id = $1 AND schema = $2 AND server_id = $3 AND object_kind IN ('database', 'role')`,
        [orgId, schema, tenant.server_id],
      );
    }
    const metadata = { database: tenant.database_name, applied };
    await recordAudit(tx, boss, { orgId, schema, action: `tenants.${kind}`, ...actor, metadata });
    if (announces) await appendChange(tx, held);
  });
}

/**
 * The operation failed for good: the tenant is as it was, or FAILED where that is what the plan says. `cause`: what that
 * means for whoever would try it again.
 */
export async function fail(
  { database, boss }: EndingContext,
  held: Held,
  reason: string,
  cause: OperationCause,
): Promise<void> {
  const { orgId, schema, kind } = held;
  await database.asSystem(async (tx) => {
    await lockHeld(tx, held);
    await tx.execute(
      `UPDATE provisioner.tenants SET step_owner = NULL, step_lease_until = NULL, last_error = $3,
         state = CASE WHEN $4 THEN 'failed' ELSE state END, step = CASE WHEN $4 THEN step END, updated_at = now()
       WHERE org_id = $1 AND schema = $2`,
      [orgId, schema, reason, PLANS[kind].onFailure === 'fail_tenant'],
    );
    const actor = await end(tx, held, 'failed', reason, cause);
    const fact = { orgId, schema, action: `tenants.${kind}`, ...actor, outcome: 'failed', metadata: { reason } };
    await recordAudit(tx, boss, fact);
    await appendChange(tx, held);
  });
}

/** The operation was given up: the tenant is as it was, or as far as it got where it gave way. */
export async function cancel({ database, boss }: EndingContext, held: Held): Promise<void> {
  const { orgId, schema, kind } = held;
  await database.asSystem(async (tx) => {
    await lockHeld(tx, held);
    await tx.execute(
      `UPDATE provisioner.tenants SET step = NULL, step_owner = NULL, step_lease_until = NULL, updated_at = now()
       WHERE org_id = $1 AND schema = $2`,
      [orgId, schema],
    );
    const actor = await end(tx, held, 'cancelled');
    if (kind === 'erase') await giveBack(tx, held);
    await recordAudit(tx, boss, { orgId, schema, action: `tenants.${kind}`, ...actor, outcome: 'cancelled' });
  });
}

/** Notes how it ended. Answers who had asked for it, for the audit log: it may have ended in another process, days later. */
async function end(
  tx: Tx,
  { operationId }: Held,
  state: Exclude<OperationState, 'running'>,
  error = '',
  cause: OperationCause = '',
): Promise<Actor> {
  // What was asked to give way did so only where it was cancelled.
  const [row] = await tx.query<Pick<OperationRow, 'actor_kind' | 'user_id'>>(
    `UPDATE provisioner.operations SET state = $2, error = $3, ended_at = now(), updated_at = now(),
       cause = CASE $2 WHEN 'cancelled' THEN cause ELSE $4 END,
       progress_done = CASE $2 WHEN 'succeeded' THEN progress_total ELSE progress_done END
     WHERE operation_id = $1 RETURNING actor_kind, user_id`,
    [operationId, state, error, cause],
  );
  return { actorKind: row!.actor_kind, userId: row!.user_id ?? undefined };
}
