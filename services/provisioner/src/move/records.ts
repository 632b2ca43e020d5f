import type { Tx } from '@mad/postgres';
import { replacedName } from '../domain/names.ts';
import { weigh } from '../domain/placement.ts';
import type { ExternalObject } from '../domain/plan.ts';
import { lockHeld, noteResult, type Held } from '../operations/lease.ts';
import { appendChange } from '../provisioning/changes.ts';
import { readCandidates } from '../servers/candidates.ts';
import { moveParams } from './move-params.ts';

const MAX_REASON_LENGTH = 500;

/** An object to be removed, not before `keepMs` from now where that is given. */
export type Leaving = ExternalObject & { keepMs?: number };

/** Cleanup records of objects at one end of a move. */
export async function rememberAt(
  tx: Tx,
  { orgId, schema, operationId }: Held,
  serverId: string,
  objects: readonly Leaving[],
): Promise<void> {
  for (const { kind, name, keepMs = null } of objects) {
    await tx.execute(
      `INSERT INTO provisioner.cleanup_records (cleanup_id, operation_id, org_id, schema, server_id, object_kind,
         object_name, keep_until)
       VALUES (gen_random_uuid(), $1, $2, $3, $4, $5, $6, now() + $7 * interval '1 millisecond')
       ON CONFLICT (server_id, object_kind, object_name) DO UPDATE
         SET operation_id = excluded.operation_id, org_id = excluded.org_id, schema = excluded.schema`,
      [operationId, orgId, schema, serverId, kind, name, keepMs],
    );
  }
}

/**
 * What cannot be removed from one end of a move now is removed when that answers again; why is noted. The tenant is served
 * by the other end already.
 */
export async function leaveBehind(
  tx: Tx,
  held: Held,
  serverId: string,
  objects: readonly Leaving[],
  error: unknown,
): Promise<void> {
  await lockHeld(tx, held);
  await rememberAt(tx, held, serverId, objects);
  const why = error instanceof Error ? error.message : String(error);
  await noteResult(tx, held, { left_behind: why.slice(0, MAX_REASON_LENGTH) });
}

/** Routers are told that nothing is written for now; when that began is noted once. Repeatable. */
export async function beginMoving(tx: Tx, held: Held): Promise<void> {
  const { orgId, schema } = held;
  await lockHeld(tx, held);
  const changed = await tx.execute(
    `UPDATE provisioner.tenants SET state = 'moving', generation = generation + 1, updated_at = now()
     WHERE org_id = $1 AND schema = $2 AND state = 'ready'`,
    [orgId, schema],
  );
  if (changed === 0) return;
  await noteResult(tx, held, { paused_at: new Date().toISOString() });
  await appendChange(tx, held);
}

/** From here on it must end: whoever goes on with the operation after a crash gives the tenant back as well. */
export async function beginGivingBack(tx: Tx, held: Held): Promise<void> {
  await lockHeld(tx, held);
  await tx.execute(
    `UPDATE provisioner.operations SET cancel_requested_at = coalesce(cancel_requested_at, now()) WHERE operation_id = $1`,
    [held.operationId],
  );
}

/** The tenant is where it was, and may be written. Repeatable. */
export async function giveBack(tx: Tx, held: Held): Promise<void> {
  await lockHeld(tx, held);
  const changed = await tx.execute(
    `UPDATE provisioner.tenants SET state = 'ready', generation = generation + 1, updated_at = now()
     WHERE org_id = $1 AND schema = $2 AND state = 'moving'`,
    [held.orgId, held.schema],
  );
  if (changed > 0) await appendChange(tx, held);
}

/**
 * The move itself: server, state, generation, why it is there, what stays behind and until when, and the routers' news, in
 * one commit.
 */
export async function switchServer(
  tx: Tx,
  held: Held,
  { database, logins }: { database: string; logins: readonly string[] },
): Promise<void> {
  const { orgId, schema, operationId } = held;
  const params = moveParams(held);
  await lockHeld(tx, held);
  const [moved] = await tx.query<{ region: string }>(
    `UPDATE provisioner.tenants SET server_id = $3, state = 'ready', generation = generation + 1, updated_at = now()
     WHERE org_id = $1 AND schema = $2 AND state = 'moving' AND server_id = $4 RETURNING region`,
    [orgId, schema, params.target_server_id, params.source_server_id],
  );
  if (moved === undefined) throw new Error('the tenant is not being moved');
  const verdicts = weigh(await readCandidates(tx), moved.region);
  await tx.execute(
    `INSERT INTO provisioner.placements (org_id, schema, region, server_name, verdicts) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (org_id, schema) DO UPDATE SET region = excluded.region, server_name = excluded.server_name,
       verdicts = excluded.verdicts, placed_at = now()`,
    [orgId, schema, moved.region, params.target_server, JSON.stringify(verdicts)],
  );
  await tx.execute(
    `DELETE FROM provisioner.cleanup_records WHERE server_id = $1 AND object_kind IN ('database', 'role')
       AND object_name = ANY ($2)`,
    [params.target_server_id, [database, ...logins]],
  );
  const kept = replacedName(schema, operationId);
  await rememberAt(tx, held, params.source_server_id, [
    { kind: 'database', name: kept, keepMs: params.keep_ms },
    ...logins.map((name) => ({ kind: 'role' as const, name })),
  ]);
  await tx.execute(
    `UPDATE provisioner.operations SET result = result || jsonb_build_object('kept_database', $2::text,
       'from', $3::text, 'to', $4::text,
       'pause_ms', round(extract(epoch FROM clock_timestamp() - (result ->> 'paused_at')::timestamptz) * 1000))
     WHERE operation_id = $1`,
    [operationId, kept, params.source_server, params.target_server],
  );
  await appendChange(tx, held);
}
