import type { Database } from '@mad/postgres';
import type { TenantKey } from '../domain/plan.ts';
import { begin, type Held } from '../operations/lease.ts';
import type { IndexParams } from './steps.ts';

const BATCH = 20;
/** After one gave way others come to their turn: it may have to wait as long as before. */
const GAVE_WAY_REST = '5 seconds';

/**
 * Begins to drop indexes that are neither there as they should be nor under way: their build or their end was given up while the
 * tenant's own transactions were in the way. One of a tenant at a time; such as something is done with come another time.
 */
export async function beginDrops(database: Database, leaseMs: number): Promise<Held[]> {
  return database.asSystem(async (tx) => {
    const found = await tx.query<TenantKey & IndexParams>(
      `SELECT t.org_id AS "orgId", t.schema,
         (SELECT min(i.name) FROM provisioner.tenant_indexes i
          WHERE i.org_id = t.org_id AND i.schema = t.schema AND i.state <> 'ready') AS name
       FROM provisioner.tenants t
       WHERE t.step IS NULL AND t.state IN ('ready', 'read_only', 'suspended') AND EXISTS (
         SELECT FROM provisioner.tenant_indexes i
         WHERE i.org_id = t.org_id AND i.schema = t.schema AND i.state <> 'ready')
         AND NOT EXISTS (SELECT FROM provisioner.operations o
           WHERE o.org_id = t.org_id AND o.schema = t.schema AND o.kind IN ('build_index', 'drop_index')
             AND o.state = 'cancelled' AND o.ended_at > now() - interval '${GAVE_WAY_REST}')
       ORDER BY t.org_id, t.schema LIMIT ${BATCH} FOR UPDATE OF t SKIP LOCKED`,
    );
    const held: Held[] = [];
    for (const { orgId, schema, name } of found) {
      // What was read before the lock may be history.
      const marked = await tx.execute(
        `UPDATE provisioner.tenant_indexes SET state = 'dropping'
         WHERE org_id = $1 AND schema = $2 AND name = $3 AND state <> 'ready'`,
        [orgId, schema, name],
      );
      if (marked === 0) continue;
      const request = { leaseMs, actor: { actorKind: 'service' as const }, params: { name } };
      held.push(await begin(tx, { orgId, schema }, 'drop_index', request));
    }
    return held;
  });
}
