import type { ObjectStore } from '@mad/object-store';
import type { OwnedRows, Statements, TableDifference } from '@mad/postgres';
import { appendChange } from '../provisioning/changes.ts';

const OWN = 't.org_id = $org';
/** More changes than any tenant sees between two backups: routers know a later generation than the archive does. */
const BEYOND = 1_000_000;

/**
 * What of an organization comes back from the archives of metadata and keys. Where a tenant is, and in which state, is known
 * best by the row that is there: only policies are ever replaced.
 */
export const provisionerOrganizationRows: OwnedRows = {
  schema: 'provisioner',
  tables: [
    { name: 'data_keys', key: ['org_id', 'version'], whose: OWN, rule: 'missing' },
    { name: 'operations', key: ['operation_id'], whose: `${OWN} AND t.state <> 'running'`, rule: 'missing' },
    {
      name: 'tenants',
      key: ['org_id', 'schema'],
      whose: `${OWN} AND t.state IN ('ready', 'read_only', 'suspended') AND t.step IS NULL`,
      rule: 'missing',
    },
    { name: 'tenant_credentials', key: ['org_id', 'schema', 'slot'], whose: OWN, rule: 'missing' },
    {
      name: 'tenant_indexes',
      key: ['org_id', 'schema', 'name'],
      whose: `${OWN} AND t.state = 'ready'`,
      rule: 'missing',
    },
    { name: 'placements', key: ['org_id', 'schema'], whose: OWN, rule: 'missing' },
    {
      name: 'backups',
      key: ['backup_id'],
      whose: `${OWN} AND t.completed_at IS NOT NULL AND t.deleting_at IS NULL`,
      rule: 'missing',
    },
    { name: 'backup_policies', key: ['org_id'], whose: OWN, rule: 'equal' },
  ],
};

/** Organization tables of provisioner that no archive brings back, and why. */
export const PROVISIONER_LEFT_OUT: Readonly<Record<string, string>> = {
  cleanup_records: 'of operations that were under way',
  tenant_changes: 'a log of what routers were told',
  tenant_stock: 'of operations that were under way',
  migration_runs: 'of rollouts, which are over or begin anew',
  erasure_records: 'what is erased stays erased',
};

/**
 * Takes from the rows laid beside the tables what must not come back: logins and indexes of tenants that are there, which
 * were rotated or dropped since, and backups whose archive is gone.
 */
export async function pruneProvisionerRows(tx: Statements, orgId: string, objects: ObjectStore): Promise<void> {
  for (const table of ['tenant_credentials', 'tenant_indexes']) {
    await tx.execute(
      `DELETE FROM pg_temp.archived_${table} a WHERE EXISTS (
         SELECT FROM provisioner.tenants t WHERE t.org_id = a.org_id AND t.schema = a.schema)
         OR NOT EXISTS (SELECT FROM pg_temp.archived_tenants t WHERE t.org_id = a.org_id AND t.schema = a.schema)`,
    );
  }
  const keys: string[] = [];
  for await (const key of objects.walk(`orgs/${orgId}/backups`)) keys.push(key);
  await tx.execute('DELETE FROM pg_temp.archived_backups a WHERE a.object_key <> ALL ($1)', [keys]);
}

/** Tells routers of the tenants that came back, in the transaction that put their rows back; `before`: what was missing. */
export async function settleProvisionerRows(
  tx: Statements,
  orgId: string,
  { before }: { before: readonly TableDifference[] },
): Promise<void> {
  if (before.every(({ table, missing }) => table !== 'provisioner.tenants' || missing === 0)) return;
  // One that was never announced has just come.
  const back = await tx.query<{ schema: string }>(
    `UPDATE provisioner.tenants t SET generation = generation + ${BEYOND}, updated_at = now()
     WHERE t.org_id = $1 AND t.ready_at IS NOT NULL AND NOT EXISTS (
       SELECT FROM provisioner.tenant_changes c WHERE c.org_id = t.org_id AND c.schema = t.schema)
     RETURNING t.schema`,
    [orgId],
  );
  for (const { schema } of back.sort((a, b) => (a.schema < b.schema ? -1 : 1))) {
    await appendChange(tx, { orgId, schema });
  }
}
