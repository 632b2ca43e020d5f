import type { Statements, TableDifference } from '@mad/postgres';
import { uuidv7 } from '@mad/process';

/** An organization's metadata rows that are being brought back. */
export interface OrganizationRestore {
  operationId: string;
  /** Owners that were done when it was broken off. */
  done: string[];
}

/** What is asked for. */
export interface OrganizationRestoreParams {
  archive: string;
  mode: string;
}

const KIND = 'restore_organization';
const BROKEN_OFF = 'it was broken off: run it again to go on';

/**
 * Notes the operation, or takes up the one that was broken off with the same archive and mode. Nobody else goes on with it:
 * it has failed until it is done.
 */
export async function beginOrganizationRestore(
  tx: Statements,
  orgId: string,
  { archive, mode }: OrganizationRestoreParams,
  owners: readonly string[],
): Promise<OrganizationRestore> {
  const [begun] = await tx.query<{ operation_id: string; result: { owners?: Record<string, unknown> } }>(
    `SELECT operation_id, result FROM provisioner.operations
     WHERE org_id = $1 AND kind = '${KIND}' AND state = 'failed' AND params = $2::jsonb
       AND started_at = (SELECT max(started_at) FROM provisioner.operations WHERE org_id = $1 AND kind = '${KIND}')`,
    [orgId, JSON.stringify({ archive, mode })],
  );
  if (begun !== undefined) return { operationId: begun.operation_id, done: Object.keys(begun.result.owners ?? {}) };
  const operationId = uuidv7();
  await tx.execute(
    `INSERT INTO provisioner.operations (operation_id, org_id, schema, kind, step, progress_total, progress_unit, params,
       actor_kind, state, error, ended_at)
     VALUES ($1, $2, 'metadata', '${KIND}', $3, $4, 'steps', $5, 'platform', 'failed', $6, now())`,
    [operationId, orgId, stepOf(owners[0]!), owners.length, JSON.stringify({ archive, mode }), BROKEN_OFF],
  );
  return { operationId, done: [] };
}

const stepOf = (owner: string): string => `restore_${owner}`;

/** Notes, in the transaction that put one owner's rows back, that it did: whoever goes on does not do it again. */
export async function noteOwnerRestored(
  tx: Statements,
  { operationId }: OrganizationRestore,
  owner: string,
  tables: readonly TableDifference[],
): Promise<void> {
  const result = {
    [owner]: Object.fromEntries(tables.map(({ table, missing, different }) => [table, { missing, different }])),
  };
  await tx.execute(
    `UPDATE provisioner.operations SET step = $2, progress_done = progress_done + 1, updated_at = now(),
       result = jsonb_build_object('owners', coalesce(result -> 'owners', '{}') || $3::jsonb)
     WHERE operation_id = $1`,
    [operationId, stepOf(owner), JSON.stringify(result)],
  );
}

/** Notes why it was broken off. */
export async function noteRestoreFailed(
  tx: Statements,
  { operationId }: OrganizationRestore,
  message: string,
): Promise<void> {
  await tx.execute('UPDATE provisioner.operations SET error = $2, ended_at = now() WHERE operation_id = $1', [
    operationId,
    message,
  ]);
}

/** All owners are done. */
export async function endOrganizationRestore(tx: Statements, { operationId }: OrganizationRestore): Promise<void> {
  await tx.execute(
    `UPDATE provisioner.operations SET state = 'succeeded', error = '', ended_at = now(), updated_at = now()
     WHERE operation_id = $1`,
    [operationId],
  );
}
