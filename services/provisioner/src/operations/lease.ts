import type { JsonObject } from '@bufbuild/protobuf';
import type { Database, Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import type { Actor } from '@mad/rpc';
import type { OperationRow } from '../db/entities/operation.ts';
import type { TenantRow } from '../db/entities/tenant.ts';
import {
  firstStep,
  mustBeCarriedThrough,
  objectsOf,
  PLANS,
  stepIndex,
  type ExternalObject,
  type OperationKind,
  type StepName,
  type TenantKey,
} from '../domain/plan.ts';
import { Cancelled } from './stops.ts';

/** A run's right to work on a tenant's step, until the lease ends. */
export interface Held extends TenantKey {
  owner: string;
  operationId: string;
  kind: OperationKind;
  step: StepName;
  /** What was asked for, as it was noted. */
  params: JsonObject;
}

/** The lease ended, or the tenant was given to another run, while this one worked. */
export class LeaseLost extends Error {
  override readonly name = 'LeaseLost';

  constructor({ orgId, schema, step }: Held) {
    super(`the lease on ${schema} of ${orgId} was lost at ${step}`);
  }
}

const LEASE_UNTIL = `now() + $4 * interval '1 millisecond'`;
/** A crash of the metadata server may undo it: the step before is then done again, as after any other crash. */
const RELAXED = { relaxed: true };
/** $1 organization, $2 schema, $3 owner: the row, if its lease is ours and alive. */
const HELD = 'org_id = $1 AND schema = $2 AND step_owner = $3 AND step_lease_until > now()';

/** What is asked for, by whom. */
export interface Request {
  actor: Actor;
  /** Never secrets. */
  params?: JsonObject;
}

/** Where to begin an operation, if not anew at its first step. */
export interface BeginOptions extends Request {
  leaseMs: number;
  /** The operation, if it was noted already. */
  operationId?: string;
  /** The step an earlier attempt got to. */
  step?: StepName;
}

/**
 * Undertakes an operation with a tenant whose row the caller has locked and found idle: notes the operation, its first
 * step and all that it will make, and takes the lease.
 */
export async function begin(tx: Tx, key: TenantKey, kind: OperationKind, options: BeginOptions): Promise<Held> {
  const { leaseMs, params = {}, step = firstStep(kind) } = options;
  const operationId = options.operationId ?? (await insertOperation(tx, key, kind, options));
  const held: Held = { ...key, owner: uuidv7(), operationId, kind, step, params };
  await tx.execute(
    `UPDATE provisioner.tenants SET operation_id = $5, step = $6, step_owner = $3, step_lease_until = ${LEASE_UNTIL},
       last_error = '', updated_at = now()
     WHERE org_id = $1 AND schema = $2`,
    [key.orgId, key.schema, held.owner, leaseMs, operationId, step],
  );
  await noteStep(tx, held);
  // What an earlier attempt left is this one's to use, and to answer for.
  await tx.execute('UPDATE provisioner.cleanup_records SET operation_id = $3 WHERE org_id = $1 AND schema = $2', [
    key.orgId,
    key.schema,
    operationId,
  ]);
  await remember(tx, held, objectsOf(kind, key, operationId));
  return held;
}

/** Notes a new operation; the tenant's row may not exist yet. Returns its id. */
export async function insertOperation(
  tx: Pick<Tx, 'execute'>,
  { orgId, schema }: TenantKey,
  kind: OperationKind,
  { actor, params = {} }: Request,
): Promise<string> {
  const operationId = uuidv7();
  await tx.execute(
    `INSERT INTO provisioner.operations (operation_id, org_id, schema, kind, step, progress_total, params, actor_kind,
       user_id)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
    [
      operationId,
      orgId,
      schema,
      kind,
      firstStep(kind),
      PLANS[kind].steps.length,
      JSON.stringify(params),
      actor.actorKind,
      actor.userId ?? null,
    ],
  );
  return operationId;
}

/** Shows which step is being done, and how many were. */
async function noteStep(tx: Tx, { operationId, kind, step }: Held): Promise<void> {
  await tx.execute(
    `UPDATE provisioner.operations SET step = $2, progress_done = $3, progress_total = $4, progress_unit = 'steps',
       updated_at = now()
     WHERE operation_id = $1`,
    [operationId, step, stepIndex(kind, step), PLANS[kind].steps.length],
  );
}

/** Takes the lease of a tenant with a step to do, when nobody holds it. Undefined when there is nothing to take. */
export async function claim(db: Database, key: TenantKey, leaseMs: number): Promise<Held | undefined> {
  const owner = uuidv7();
  return db.asSystem(async (tx) => {
    const [row] = await tx.query<Pick<TenantRow, 'operation_id' | 'step'> & Pick<OperationRow, 'kind' | 'params'>>(
      `UPDATE provisioner.tenants t SET step_owner = $3, step_lease_until = ${LEASE_UNTIL}, updated_at = now()
       FROM provisioner.operations o
       WHERE t.org_id = $1 AND t.schema = $2 AND o.operation_id = t.operation_id AND o.state = 'running'
         AND t.step IS NOT NULL AND (t.step_owner IS NULL OR t.step_lease_until <= now())
       RETURNING t.operation_id, t.step, o.kind, o.params`,
      [key.orgId, key.schema, owner, leaseMs],
    );
    if (row === undefined) return undefined;
    const { operation_id: operationId, kind, params } = row;
    const held: Held = { ...key, owner, operationId, kind, step: row.step!, params };
    await remember(tx, held, objectsOf(kind, key, operationId));
    return held;
  });
}

/** Prolongs the lease. Throws LeaseLost when it is another's. */
export async function renew(db: Database, held: Held, leaseMs: number): Promise<void> {
  const renewed = await db.asSystem(
    (tx) =>
      tx.execute(`UPDATE provisioner.tenants SET step_lease_until = ${LEASE_UNTIL} WHERE ${HELD}`, [
        held.orgId,
        held.schema,
        held.owner,
        leaseMs,
      ]),
    RELAXED,
  );
  if (renewed === 0) throw new LeaseLost(held);
}

/**
 * Goes to the next step. Throws LeaseLost when the lease is another's, and Cancelled where the operation's end was asked for
 * and the next step could not be given up any more: whoever asks later is told that it is too late.
 */
export async function advance(db: Database, held: Held, next: StepName, leaseMs: number): Promise<Held> {
  const { kind, step } = held;
  const binds = mustBeCarriedThrough(kind, next) && !mustBeCarriedThrough(kind, step);
  const move = async (tx: Tx): Promise<Held> => {
    const moved = await tx.execute(
      `UPDATE provisioner.tenants SET step = $5, step_lease_until = ${LEASE_UNTIL}, updated_at = now(),
         state = CASE state WHEN 'requested' THEN 'creating' ELSE state END
       WHERE ${HELD}`,
      [held.orgId, held.schema, held.owner, leaseMs, next],
    );
    if (moved === 0) throw new LeaseLost(held);
    // The row stays locked, as it is by whoever asks for the end: one of both comes first.
    if (binds && (await wasAskedToEnd(tx, held, 'FOR UPDATE'))) throw new Cancelled('its end was asked for');
    const then = { ...held, step: next };
    await noteStep(tx, then);
    return then;
  };
  return binds ? db.asSystem(move) : db.asSystem(move, RELAXED);
}

/** Shows how much of its step is done; the total grows where it was guessed too low. */
export async function noteProgress(
  db: Database,
  { operationId }: Held,
  { done, total, unit }: { done: number; total: number; unit: 'bytes' | 'rows' },
): Promise<void> {
  await db.asSystem(
    (tx) =>
      tx.execute(
        `UPDATE provisioner.operations SET progress_done = $2::bigint, progress_total = greatest($2::bigint, $3::bigint),
           progress_unit = $4, updated_at = now()
         WHERE operation_id = $1 AND state = 'running'`,
        [operationId, Math.round(done), Math.round(total), unit],
      ),
    RELAXED,
  );
}

/** Adds to what came of the operation. */
export async function noteResult(tx: Tx, { operationId }: Held, result: JsonObject): Promise<void> {
  await tx.execute(
    'UPDATE provisioner.operations SET result = result || $2::jsonb, updated_at = now() WHERE operation_id = $1',
    [operationId, JSON.stringify(result)],
  );
}

/** What was noted of the operation so far; `begun` where an earlier run of it got as far as changing something. */
export async function readResult(db: Database, { operationId }: Held): Promise<JsonObject> {
  const [row] = await db.asSystem((tx) =>
    tx.query<Pick<OperationRow, 'result'>>('SELECT result FROM provisioner.operations WHERE operation_id = $1', [
      operationId,
    ]),
  );
  return row?.result ?? {};
}

/** Whether somebody asked for the operation's end. */
export function isCancelRequested(db: Database, held: Held): Promise<boolean> {
  return db.asSystem((tx) => wasAskedToEnd(tx, held));
}

async function wasAskedToEnd(tx: Tx, { operationId }: Held, lock: 'FOR UPDATE' | '' = ''): Promise<boolean> {
  const [row] = await tx.query<{ requested: boolean }>(
    `SELECT cancel_requested_at IS NOT NULL AS requested FROM provisioner.operations WHERE operation_id = $1 ${lock}`,
    [operationId],
  );
  return row?.requested ?? false;
}

/** Whether its end was asked for to make room: whoever wants it asks for it again. */
export async function givesWay(db: Database, { operationId }: Held): Promise<boolean> {
  const [row] = await db.asSystem((tx) =>
    tx.query<Pick<OperationRow, 'cause'>>('SELECT cause FROM provisioner.operations WHERE operation_id = $1', [
      operationId,
    ]),
  );
  return row?.cause === 'gives_way';
}

/** Locks the tenant's row while the lease is ours, for the last update of a run. Throws LeaseLost otherwise. */
export async function lockHeld(tx: Tx, held: Held): Promise<void> {
  const locked = await tx.execute(`SELECT FROM provisioner.tenants WHERE ${HELD} FOR UPDATE`, [
    held.orgId,
    held.schema,
    held.owner,
  ]);
  if (locked === 0) throw new LeaseLost(held);
}

/**
 * Cleanup records of objects on the tenant's server that an operation is about to make. One that an earlier operation
 * left under the same name becomes this one's.
 */
export async function remember(
  tx: Tx,
  { orgId, schema, operationId }: Held,
  objects: readonly ExternalObject[],
): Promise<void> {
  if (objects.length === 0) return;
  await tx.execute(
    `INSERT INTO provisioner.cleanup_records (cleanup_id, operation_id, org_id, schema, server_id, object_kind, object_name)
     SELECT gen_random_uuid(), $3, t.org_id, t.schema, t.server_id, o.kind, o.name
     FROM provisioner.tenants t, unnest($4::text[], $5::text[]) AS o (kind, name)
     WHERE t.org_id = $1 AND t.schema = $2
     ON CONFLICT (server_id, object_kind, object_name) DO UPDATE
       SET operation_id = excluded.operation_id, org_id = excluded.org_id, schema = excluded.schema`,
    [orgId, schema, operationId, objects.map(({ kind }) => kind), objects.map(({ name }) => name)],
  );
}
