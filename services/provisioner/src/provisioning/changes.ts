import type { Tx } from '@mad/postgres';
import type { TenantKey } from '../domain/plan.ts';

/**
 * Writes a tenant's present generation and state into its schema's change log. The number comes from a row that stays
 * locked until the commit, so numbers follow commits and have no gaps; do this last in a transaction.
 */
export async function appendChange(tx: Pick<Tx, 'execute'>, { orgId, schema }: TenantKey): Promise<void> {
  await tx.execute(
    `WITH counter AS (
       INSERT INTO provisioner.tenant_change_counters AS c (schema, last_seq) VALUES ($2, 1)
       ON CONFLICT (schema) DO UPDATE SET last_seq = c.last_seq + 1 RETURNING last_seq
     )
     INSERT INTO provisioner.tenant_changes (schema, seq, org_id, generation, state)
     SELECT t.schema, counter.last_seq, t.org_id, t.generation, t.state
     FROM provisioner.tenants t, counter WHERE t.org_id = $1 AND t.schema = $2`,
    [orgId, schema],
  );
}
