import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { rpcError } from '@mad/rpc';
import type { RolloutRow } from '../db/entities/rollout.ts';
import { readRollout, refuseOthers } from './rollout-rows.ts';

const MAX_REPORT = 500;
/**
 * Nothing was done to the tenant: no operation was begun for it, or none that got as far as knowing where it is (a migration
 * notes that before it changes anything), or it was at the version ($2) already. How often it was tried does not tell: a
 * resumption counts anew.
 */
const UNTOUCHED = `(operation_id IS NULL OR from_version IN ('', $2))`;

function refused({ rollout_id: rolloutId, state }: RolloutRow, why: string): Error {
  const about = { rollout_id: rolloutId, state };
  return rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', `rollout_id: ${why}`, about);
}

/** Nothing begins any more; a repeat changes nothing. Like the others here it answers whether it changed anything. */
export async function pause(tx: Tx, rolloutId: string): Promise<boolean> {
  const row = await readRollout(tx, rolloutId, 'FOR UPDATE');
  if (row.ended_at !== null) throw refused(row, 'it has ended');
  if (row.state !== 'running' && row.state !== 'waiting') return false;
  await move(tx, rolloutId, 'paused', 'somebody paused it');
  return true;
}

/** What failed is tried again, and everything that is not at its version is looked at anew. */
export async function resume(tx: Tx, rolloutId: string): Promise<boolean> {
  const row = await readRollout(tx, rolloutId, 'FOR UPDATE');
  if (row.state === 'running' || row.state === 'waiting') return false;
  if (row.state === 'aborted' || row.state === 'rolled_back') throw refused(row, 'it was given up: begin another');
  await refuseOthers(tx, row.schema, rolloutId);
  if (row.state === 'succeeded') await refuseOlder(tx, row);
  await tx.execute(
    `UPDATE provisioner.migration_runs SET state = 'pending', attempts = 0, not_before = now(), error = '', drift = NULL,
       updated_at = now()
     WHERE rollout_id = $1 AND state IN ('failed', 'pending', 'queued')`,
    [rolloutId],
  );
  await tx.execute(
    `UPDATE provisioner.migration_rollouts SET checked = false, ended_at = NULL,
       wave = CASE WHEN (rules->>'verification')::boolean AND NOT verified THEN 0 ELSE coalesce((SELECT min(wave)
         FROM provisioner.migration_runs WHERE rollout_id = $1 AND state IN ('pending', 'running')), wave) END,
       state = 'running', reason = '', updated_at = now()
     WHERE rollout_id = $1`,
    [rolloutId],
  );
  return true;
}

/** What was not begun stays where it is. What was, and has not arrived, may stand between two versions: it has failed. */
export async function abort(tx: Tx, rolloutId: string): Promise<boolean> {
  const row = await readRollout(tx, rolloutId, 'FOR UPDATE');
  if (row.state === 'aborted') return false;
  if (row.ended_at !== null) throw refused(row, 'it has ended');
  await tx.execute(
    `UPDATE provisioner.migration_runs SET state = CASE WHEN ${UNTOUCHED} THEN 'skipped' ELSE 'failed' END,
       error = CASE WHEN ${UNTOUCHED} OR error <> '' THEN error ELSE 'the rollout was given up before it had arrived' END,
       updated_at = now()
     WHERE rollout_id = $1 AND state IN ('pending', 'queued')`,
    [rolloutId, row.version],
  );
  await move(tx, rolloutId, 'aborted', 'somebody gave it up');
  return true;
}

/** What it did is undone: its tenants go back to the version each had. */
export async function rollBack(tx: Tx, rolloutId: string): Promise<boolean> {
  const row = await readRollout(tx, rolloutId, 'FOR UPDATE');
  if (row.state === 'rolled_back' || (row.direction === 'down' && row.state === 'running')) return false;
  await refuseOthers(tx, row.schema, rolloutId);
  await refuseOlder(tx, row);
  await tx.execute(
    `UPDATE provisioner.migration_runs SET state = 'skipped', updated_at = now()
     WHERE rollout_id = $1 AND state IN ('pending', 'queued', 'failed') AND ${UNTOUCHED}`,
    [rolloutId, row.version],
  );
  // What has not arrived may stand between two versions. What is being migrated now follows when that has ended.
  await tx.execute(
    `UPDATE provisioner.migration_runs SET state = 'pending', attempts = 0, not_before = now(), error = '', updated_at = now()
     WHERE rollout_id = $1 AND state IN ('succeeded', 'failed', 'pending', 'queued') AND from_version NOT IN ('', $2)`,
    [rolloutId, row.version],
  );
  await tx.execute(
    `UPDATE provisioner.migration_rollouts SET direction = 'down', ended_at = NULL, state = 'running', reason = '',
       wave = coalesce((SELECT max(wave) FROM provisioner.migration_runs WHERE rollout_id = $1), 0), updated_at = now()
     WHERE rollout_id = $1`,
    [rolloutId],
  );
  return true;
}

/** Whether the tenants labelled staging are well. */
export async function report(tx: Tx, rolloutId: string, passed: boolean, text: string): Promise<boolean> {
  const row = await readRollout(tx, rolloutId, 'FOR UPDATE');
  if (row.verified && passed) return false;
  if (row.state !== 'waiting') throw refused(row, 'it waits for no verification');
  if (!passed) {
    await move(tx, rolloutId, 'halted', `the verification failed: ${text}`.slice(0, MAX_REPORT));
    return true;
  }
  await tx.execute('UPDATE provisioner.migration_rollouts SET verified = true WHERE rollout_id = $1', [rolloutId]);
  await move(tx, rolloutId, 'running', '');
  return true;
}

/** Changes where it stands; what ends it says so. */
export async function move(tx: Tx, rolloutId: string, state: RolloutRow['state'], reason: string): Promise<void> {
  await tx.execute(
    `UPDATE provisioner.migration_rollouts SET state = $2, reason = $3, updated_at = now(),
       ended_at = CASE WHEN $2 IN ('succeeded', 'aborted', 'rolled_back') THEN now() END
     WHERE rollout_id = $1`,
    [rolloutId, state, reason],
  );
}

/** Under a later rollout an older one's versions are history. */
async function refuseOlder(tx: Tx, row: RolloutRow): Promise<void> {
  const [later] = await tx.query<{ rollout_id: string }>(
    `SELECT rollout_id FROM provisioner.migration_rollouts
     WHERE schema = $1 AND created_at > $2 AND state NOT IN ('rolled_back', 'aborted') ORDER BY created_at LIMIT 1`,
    [row.schema, row.created_at],
  );
  if (later !== undefined) throw refused(row, `the rollout ${later.rollout_id} came after it`);
}
