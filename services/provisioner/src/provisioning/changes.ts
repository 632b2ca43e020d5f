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

/**
 * Tells that every tenant of a server is to be found elsewhere: a new generation of each, in the change logs of their
 * schemas. Do this last in a transaction.
 */
export async function announceServer(tx: Pick<Tx, 'execute'>, serverId: string): Promise<void> {
  await tx.execute(
    `WITH moved AS (
       UPDATE provisioner.tenants SET generation = generation + 1 WHERE server_id = $1 AND state <> 'erased'
       RETURNING schema, org_id, generation, state
     ), counted AS (
       SELECT schema, count(*) AS tenants FROM moved GROUP BY schema
     ), counter AS (
       INSERT INTO provisioner.tenant_change_counters AS c (schema, last_seq) SELECT schema, tenants FROM counted
       ON CONFLICT (schema) DO UPDATE SET last_seq = c.last_seq + excluded.last_seq RETURNING schema, last_seq
     )
     INSERT INTO provisioner.tenant_changes (schema, seq, org_id, generation, state)
     SELECT schema, last_seq - tenants + row_number() OVER (PARTITION BY schema ORDER BY org_id), org_id, generation, state
     FROM moved JOIN counted USING (schema) JOIN counter USING (schema)`,
    [serverId],
  );
}
