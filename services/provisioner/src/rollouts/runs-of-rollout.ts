import type { JsonObject } from '@bufbuild/protobuf';
import type { Database, Tx } from '@mad/postgres';
import type { RolloutRow, RunRow } from '../db/entities/rollout.ts';
import type { OperationState } from '../db/entities/operation.ts';
import { mayPass, type OperationCause } from '../domain/operation-cause.ts';
import { pauseBefore, type RunState } from '../domain/rollout.ts';
import { isUsable } from '../domain/tenant-state.ts';
import { begin, type Held } from '../operations/lease.ts';
import { lockTenant } from '../operations/lock-tenant.ts';

const BUSY_PAUSE_MS = 1_000;
const QUEUE_PAUSE_MS = 15_000;
/** Long enough for what it gave way to to begin. */
const YIELD_PAUSE_MS = 3_000;

type Ended = Pick<RunRow, 'org_id' | 'attempts' | 'from_version'> & {
  operation_state: OperationState;
  operation_error: string;
  cause: OperationCause;
  version: string | null;
  /** The version the migration found, where nobody had looked before it. */
  found: string | null;
};

/** Notes how the operations of a rollout's runs ended, whoever carried them out. */
export async function settleRuns(database: Database, rollout: RolloutRow): Promise<void> {
  await database.asSystem(async (tx) => {
    const ended = await tx.query<Ended>(
      `SELECT r.org_id, r.attempts, r.from_version, o.state AS operation_state, o.error AS operation_error, o.cause,
         o.params->>'version' AS version, o.result->>'from' AS found
       FROM provisioner.migration_runs r JOIN provisioner.operations o USING (operation_id)
       WHERE r.rollout_id = $1 AND r.state = 'running' AND o.state <> 'running' FOR UPDATE OF r`,
      [rollout.rollout_id],
    );
    for (const one of ended) {
      const { state, error, pauseMs, attempts } = settled(rollout, one);
      // A database knows which version it had; its row may not.
      const from = one.from_version || (one.found ?? '');
      // It was asked back before anybody had looked at it: nothing was done to it.
      const untouched = rollout.direction === 'down' && from === '';
      await setRun(tx, rollout.rollout_id, one.org_id, untouched ? 'skipped' : state, error, pauseMs);
      await tx.execute(
        'UPDATE provisioner.migration_runs SET from_version = $3, attempts = $4 WHERE rollout_id = $1 AND org_id = $2',
        [rollout.rollout_id, one.org_id, from, attempts],
      );
    }
  });
}

/** Where a run stands when its operation has ended, and how many tries it has had by then. */
function settled(
  rollout: RolloutRow,
  run: Ended,
): { state: RunState; error: string; pauseMs: number; attempts: number } {
  const { direction, version, rules, ended_at: ended } = rollout;
  const { cause, attempts } = run;
  const up = run.version === version;
  if (run.operation_state === 'succeeded' && up === (direction === 'up')) {
    return { state: up ? 'succeeded' : 'rolled_back', error: '', pauseMs: 0, attempts };
  }
  // It went up while somebody asked for the way back: however that ended, now it goes back.
  if (up && direction === 'down') return { state: 'pending', error: '', pauseMs: 0, attempts: 0 };
  const gaveWay = cause === 'gives_way' ? "it gave way to a change of the tenant's state" : '';
  const error = run.operation_error || gaveWay || 'somebody cancelled it';
  // One that has passed brings on whom it left behind; one that was given up does not.
  const goesOn = ended === null || rollout.state === 'succeeded';
  if (!goesOn || !mayPass(cause)) return { state: 'failed', error, pauseMs: 0, attempts };
  const waiting: RunState = ended === null ? 'pending' : 'queued';
  // No try of its own: whoever is suspended again and again is migrated at last.
  if (gaveWay) return { state: waiting, error, pauseMs: YIELD_PAUSE_MS, attempts: Math.max(0, attempts - 1) };
  if (cause === 'away' && direction === 'up' && (ended !== null || attempts >= rules.attempts)) {
    return { state: 'queued', error, pauseMs: QUEUE_PAUSE_MS, attempts: 0 };
  }
  if (attempts >= rules.attempts) return { state: 'failed', error, pauseMs: 0, attempts };
  return { state: waiting, error, pauseMs: pauseBefore(attempts), attempts };
}

/** Takes runs whose turn it is, and begins what can be begun. */
export async function beginRuns(
  database: Database,
  rollout: RolloutRow,
  from: { state: 'pending' | 'queued'; wave: number | null; limit: number },
  leaseMs: number,
): Promise<Held[]> {
  if (from.limit <= 0) return [];
  const candidates = await database.asSystem((tx) =>
    tx.query<{ org_id: string }>(
      `SELECT org_id FROM provisioner.migration_runs
       WHERE rollout_id = $1 AND state = $2 AND ($3::int IS NULL OR wave = $3) AND not_before <= now()
       ORDER BY not_before, org_id LIMIT $4`,
      [rollout.rollout_id, from.state, from.wave, from.limit],
    ),
  );
  const held: Held[] = [];
  for (const { org_id: orgId } of candidates) {
    const one = await database.asSystem((tx) => beginRun(tx, rollout, orgId, from.state, leaseMs));
    if (one !== undefined) held.push(one);
  }
  return held;
}

async function beginRun(
  tx: Tx,
  { rollout_id: rolloutId, schema, version, direction, actor_kind: actorKind, user_id: userId }: RolloutRow,
  orgId: string,
  state: 'pending' | 'queued',
  leaseMs: number,
): Promise<Held | undefined> {
  const tenant = await lockTenant(tx, { orgId, schema });
  const [run] = await tx.query<Pick<RunRow, 'from_version'>>(
    `SELECT r.from_version FROM provisioner.migration_runs r JOIN provisioner.migration_rollouts o USING (rollout_id)
     WHERE r.rollout_id = $1 AND r.org_id = $2 AND r.state = $3 AND o.direction = $4
       AND (o.state = 'running' OR o.state = 'succeeded') FOR UPDATE`,
    [rolloutId, orgId, state, direction],
  );
  if (run === undefined || tenant === undefined) return undefined;
  if (tenant.state === 'erased' || tenant.state === 'erasing') {
    await setRun(tx, rolloutId, orgId, 'skipped', `the tenant is ${tenant.state}`);
    return undefined;
  }
  if (!isUsable(tenant.state) && tenant.state !== 'suspended') {
    await setRun(tx, rolloutId, orgId, 'queued', `the tenant is ${tenant.state}`, QUEUE_PAUSE_MS);
    return undefined;
  }
  if (tenant.step !== null) {
    await setRun(tx, rolloutId, orgId, state, `busy at ${tenant.step}`, BUSY_PAUSE_MS);
    return undefined;
  }
  // Without a version to go back to it would go to the newest one.
  if (direction === 'down' && run.from_version === '') {
    await setRun(tx, rolloutId, orgId, 'skipped', 'nothing was done to it');
    return undefined;
  }
  const params: JsonObject = { rollout_id: rolloutId, version: direction === 'up' ? version : run.from_version };
  // Looked at when the rollout began; one that was out of reach then is looked at when it is begun.
  if (direction === 'up' && run.from_version !== '') params['from'] = run.from_version;
  const actor = { actorKind, userId: userId ?? undefined };
  const held = await begin(tx, { orgId, schema }, 'migrate', { leaseMs, actor, params });
  // One commit with the operation: after a crash either both are there or neither is.
  await tx.execute(
    `UPDATE provisioner.migration_runs SET state = 'running', operation_id = $3, attempts = attempts + 1, error = '',
       updated_at = now()
     WHERE rollout_id = $1 AND org_id = $2`,
    [rolloutId, orgId, held.operationId],
  );
  return held;
}

async function setRun(
  tx: Tx,
  rolloutId: string,
  orgId: string,
  state: RunState,
  error: string,
  pauseMs = 0,
): Promise<void> {
  await tx.execute(
    `UPDATE provisioner.migration_runs SET state = $3, error = $4, not_before = now() + $5 * interval '1 millisecond',
       updated_at = now() WHERE rollout_id = $1 AND org_id = $2`,
    [rolloutId, orgId, state, error, pauseMs],
  );
}

/** How a wave stands. */
export interface WaveCounts {
  wave: number;
  total: number;
  pending: number;
  running: number;
  failed: number;
  succeeded: number;
  queued: number;
}

/** Every wave of a rollout, the first one first. */
export function countWaves(database: Database, rolloutId: string): Promise<WaveCounts[]> {
  return database.asSystem((tx) =>
    tx.query<WaveCounts>(
      `SELECT wave, count(*)::int AS total, count(*) FILTER (WHERE state = 'pending')::int AS pending,
         count(*) FILTER (WHERE state = 'running')::int AS running, count(*) FILTER (WHERE state = 'failed')::int AS failed,
         count(*) FILTER (WHERE state = 'succeeded')::int AS succeeded, count(*) FILTER (WHERE state = 'queued')::int AS queued
       FROM provisioner.migration_runs WHERE rollout_id = $1 GROUP BY wave ORDER BY wave`,
      [rolloutId],
    ),
  );
}
