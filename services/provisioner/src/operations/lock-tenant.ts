import type { Tx } from '@mad/postgres';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import type { TenantKey } from '../domain/plan.ts';

/** The tenant's row, locked until the transaction ends. */
export async function lockTenant(tx: Tx, { orgId, schema }: TenantKey): Promise<TenantRow | undefined> {
  const [row] = await tx.query<TenantRow>(
    `SELECT ${TENANT_COLUMNS} FROM provisioner.tenants WHERE org_id = $1 AND schema = $2 FOR UPDATE`,
    [orgId, schema],
  );
  return row;
}
