import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { rpcError, type Actor } from '@mad/rpc';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import { databaseName } from '../domain/names.ts';
import { begin, insertOperation, type Held } from '../operations/lease.ts';
import { appendChange } from '../provisioning/changes.ts';
import { askToGiveWay } from '../provisioning/switching.ts';

/** What an erasure is told. */
export interface ErasureParams {
  erasure_id: string;
  slug: string;
  requested_by: string;
}

/** What was begun: `held` where this call began it; nothing while a tenant is busy. */
export interface BegunErasure {
  operationId?: string;
  held?: Held;
}

/** One at a time: an organization may have no row to lock yet. */
async function lockErasure(tx: Tx, orgId: string): Promise<void> {
  await tx.execute('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [`mad.erase.${orgId}`]);
}

/** Throws for an organization that is erased or being erased; no erasure begins until the transaction has ended. */
export async function refuseErased(tx: Tx, orgId: string): Promise<void> {
  await lockErasure(tx, orgId);
  const gone = await tx.execute(
    `SELECT FROM provisioner.tenants WHERE org_id = $1 AND state IN ('erasing', 'erased')
     UNION ALL SELECT FROM provisioner.erasure_records WHERE org_id = $1`,
    [orgId],
  );
  if (gone === 0) return;
  const message = 'the organization was erased: nothing is kept for it any more';
  throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', message, { org_id: orgId, state: 'erased' });
}

/**
 * Begins the erasure of an organization, or finds the one that is under way or done. All its tenants are shut for routers in
 * the same commit; those it never had become tombstones, so that none is made afterwards.
 */
export async function beginErasure(
  tx: Tx,
  orgId: string,
  params: ErasureParams,
  { leaseMs, actor, schemas }: { leaseMs: number; actor: Actor; schemas: readonly string[] },
): Promise<BegunErasure> {
  await lockErasure(tx, orgId);
  const [known] = await tx.query<{ operation_id: string }>(
    `SELECT operation_id FROM provisioner.operations WHERE org_id = $1 AND kind = 'erase'
       AND (state IN ('running', 'succeeded') OR params ->> 'erasure_id' = $2)
     ORDER BY started_at DESC LIMIT 1`,
    [orgId, params.erasure_id],
  );
  if (known !== undefined) return { operationId: known.operation_id };
  const rows = await tx.query<TenantRow>(
    `SELECT ${TENANT_COLUMNS} FROM provisioner.tenants WHERE org_id = $1 ORDER BY schema FOR UPDATE`,
    [orgId],
  );
  const busy = rows.filter(({ state, step }) => step !== null && state !== 'failed');
  for (const row of busy) await askToGiveWay(tx, row);
  if (busy.length > 0) return {};
  const missing = schemas.filter((schema) => rows.every((row) => row.schema !== schema));
  const lead = { orgId, schema: rows[0]?.schema ?? missing[0]! };
  const request = { actor, params: { ...params } };
  const operationId = await insertOperation(tx, lead, 'erase', request);
  for (const schema of missing) await insertTombstone(tx, orgId, schema, operationId);
  for (const { schema } of rows) {
    await tx.execute(
      `UPDATE provisioner.tenants SET state = 'erasing', step = NULL, generation = generation + 1, operation_id = $3,
         updated_at = now() WHERE org_id = $1 AND schema = $2`,
      [orgId, schema, operationId],
    );
  }
  // What earlier operations left is this one's to remove.
  await tx.execute('UPDATE provisioner.cleanup_records SET operation_id = $2 WHERE org_id = $1', [orgId, operationId]);
  const held = await begin(tx, lead, 'erase', { ...request, leaseMs, operationId });
  // Last, as the log wants it, and in the order of the schemas: two logs are never locked crosswise.
  for (const { schema } of rows) await appendChange(tx, { orgId, schema });
  return { operationId, held };
}

/** The row of a tenant that never was and never will be. It stands on some server, and has nothing there. */
async function insertTombstone(tx: Tx, orgId: string, schema: string, operationId: string): Promise<void> {
  const inserted = await tx.execute(
    `INSERT INTO provisioner.tenants (org_id, schema, server_id, database_name, region, operation_id, state)
     SELECT $1, $2, server_id, $3, region, $4, 'erasing' FROM provisioner.database_servers ORDER BY name LIMIT 1`,
    [orgId, schema, databaseName(schema, orgId), operationId],
  );
  if (inserted > 0) return;
  throw rpcError(Code.FailedPrecondition, 'NO_SERVER_AVAILABLE', 'no server is registered', { org_id: orgId });
}

/** The erasure was given up before anything was dropped: what there was is suspended, and can be resumed. */
export async function giveBack(tx: Tx, { orgId, operationId }: Held): Promise<void> {
  await tx.execute(
    `DELETE FROM provisioner.tenants t WHERE t.org_id = $1 AND t.operation_id = $2 AND NOT EXISTS (
       SELECT FROM provisioner.tenant_credentials c WHERE c.org_id = t.org_id AND c.schema = t.schema)`,
    [orgId, operationId],
  );
  const back = await tx.query<{ schema: string; state: string }>(
    `UPDATE provisioner.tenants SET step = CASE WHEN ready_at IS NULL THEN 'create_database' END,
       state = CASE WHEN ready_at IS NULL THEN 'failed' ELSE 'suspended' END, generation = generation + 1,
       updated_at = now()
     WHERE org_id = $1 AND operation_id = $2 RETURNING schema, state`,
    [orgId, operationId],
  );
  const tenants = back.sort((a, b) => (a.schema < b.schema ? -1 : 1));
  // The databases are to be shut as well: whoever sweeps next does it.
  for (const { schema, state } of tenants) {
    const actor = { actorKind: 'service' } as const;
    if (state === 'suspended') await begin(tx, { orgId, schema }, 'suspend', { leaseMs: 1, actor });
  }
  for (const { schema } of tenants) await appendChange(tx, { orgId, schema });
}
