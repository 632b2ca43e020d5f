import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { notFound, rpcError, type Actor } from '@mad/rpc';
import { ROLLOUT_COLUMNS, type RolloutRow } from '../db/entities/rollout.ts';
import { waveOf, type RolloutRules } from '../domain/rollout.ts';

/** The rollout's row; locked until the transaction ends where `lock` says so. Throws NOT_FOUND. */
export async function readRollout(tx: Tx, rolloutId: string, lock: '' | 'FOR UPDATE' = ''): Promise<RolloutRow> {
  const [row] = await tx.query<RolloutRow>(
    `SELECT ${ROLLOUT_COLUMNS} FROM provisioner.migration_rollouts WHERE rollout_id = $1 ${lock}`,
    [rolloutId],
  );
  if (row === undefined) throw notFound('rollout', rolloutId);
  return row;
}

/** What a new rollout is. */
export interface NewRollout {
  rolloutId: string;
  schema: string;
  version: string;
  rules: RolloutRules;
  actor: Actor;
}

/**
 * Notes a rollout and its tenants in waves: those labelled staging, then the canaries (those labelled canary first), then the rest by age.
 * A repeat changes nothing, whatever the newest version is by then. Answers whether it is a new one. Throws
 * FAILED_PRECONDITION while another of the schema is under way, ALREADY_EXISTS for a repeat that asks for something else.
 */
export async function insertRollout(
  tx: Tx,
  { rolloutId, schema, version, rules, actor }: NewRollout,
): Promise<boolean> {
  // One after the other: two at once would both see none under way.
  await tx.query(`SELECT pg_advisory_xact_lock(hashtextextended('mad.rollout.' || $1, 0))`, [schema]);
  const [before] = await tx.query<RolloutRow>(
    `SELECT ${ROLLOUT_COLUMNS} FROM provisioner.migration_rollouts WHERE rollout_id = $1`,
    [rolloutId],
  );
  if (before !== undefined) {
    refuseDifferent(before, schema, rules);
    return false;
  }
  await refuseOthers(tx, schema);
  await tx.execute(
    `INSERT INTO provisioner.migration_rollouts (rollout_id, schema, version, rules, actor_kind, user_id)
     VALUES ($1, $2, $3, $4, $5, $6)`,
    [rolloutId, schema, version, JSON.stringify(rules), actor.actorKind, actor.userId ?? null],
  );
  // This one has them all.
  await tx.execute(
    `UPDATE provisioner.migration_runs SET state = 'skipped', updated_at = now() WHERE schema = $1 AND state = 'queued'`,
    [schema],
  );
  const tenants = await tx.query<{ org_id: string; staging: boolean }>(
    `SELECT org_id, labels ? 'staging' AS staging FROM provisioner.tenants
     WHERE schema = $1 AND state NOT IN ('erasing', 'erased') ORDER BY labels ? 'canary' DESC, org_id`,
    [schema],
  );
  let others = 0;
  const waves = tenants.map(({ staging }) => waveOf(staging, staging ? 0 : others++, rules));
  await tx.execute(
    `INSERT INTO provisioner.migration_runs (rollout_id, org_id, schema, wave)
     SELECT $1, org_id, $2, wave FROM unnest($3::uuid[], $4::int[]) AS one (org_id, wave)`,
    [rolloutId, schema, tenants.map(({ org_id: orgId }) => orgId), waves],
  );
  return true;
}

function refuseDifferent(before: RolloutRow, schema: string, rules: RolloutRules): void {
  const differing = (Object.keys(rules) as (keyof RolloutRules)[])
    .filter((rule) => before.rules[rule] !== rules[rule])
    .map((rule) => `rules.${rule}`);
  if (before.schema !== schema) differing.unshift('schema');
  if (differing.length === 0) return;
  const message = `request_id: an earlier request with it differs in ${differing.join(', ')}`;
  const about = { fields: differing.join(','), request_id: before.rollout_id };
  throw rpcError(Code.AlreadyExists, 'REQUEST_ID_REUSED', message, about);
}

/** Throws FAILED_PRECONDITION when a rollout of the schema is under way, other than this one. */
export async function refuseOthers(tx: Tx, schema: string, rolloutId: string | null = null): Promise<void> {
  const [other] = await tx.query<{ rollout_id: string; state: string }>(
    `SELECT rollout_id, state FROM provisioner.migration_rollouts
     WHERE schema = $1 AND ended_at IS NULL AND rollout_id IS DISTINCT FROM $2`,
    [schema, rolloutId],
  );
  if (other === undefined) return;
  const message = `schema: the rollout ${other.rollout_id} of ${schema} is ${other.state}: resume, abort or roll it back first`;
  throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', message, { schema, rollout_id: other.rollout_id });
}

/** Rows changed, and to be changed, in the tenants of a rollout whose rows are being changed now. */
export async function countRows(tx: Tx, rolloutId: string): Promise<{ changed: number; total: number }> {
  const [rows] = await tx.query<{ changed: number; total: number }>(
    `SELECT coalesce(sum(o.progress_done), 0)::float8 AS changed, coalesce(sum(o.progress_total), 0)::float8 AS total
     FROM provisioner.migration_runs r JOIN provisioner.operations o USING (operation_id)
     WHERE r.rollout_id = $1 AND r.state = 'running' AND o.progress_unit = 'rows'`,
    [rolloutId],
  );
  return rows!;
}

/** Tenants of rollouts by the state of their run. */
export async function countRuns(tx: Tx, rolloutIds: readonly string[]): Promise<Map<string, Record<string, number>>> {
  const rows = await tx.query<{ rollout_id: string; state: string; count: number }>(
    `SELECT rollout_id, state, count(*)::int AS count FROM provisioner.migration_runs
     WHERE rollout_id = ANY ($1) GROUP BY 1, 2`,
    [rolloutIds],
  );
  const counts = new Map<string, Record<string, number>>(rolloutIds.map((rolloutId) => [rolloutId, {}]));
  for (const { rollout_id: rolloutId, state, count } of rows) counts.get(rolloutId)![state] = count;
  return counts;
}
