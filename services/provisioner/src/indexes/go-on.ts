import type { Database } from '@mad/postgres';
import type { Logger } from '@mad/process';
import type { OperationRow } from '../db/entities/operation.ts';
import type { TenantKey } from '../domain/plan.ts';
import { beginWithIdle } from '../operations/begin-idle.ts';
import type { Runs } from '../operations/runs.ts';

const BATCH = 20;
/** Long enough for what it gave way to to begin. */
const REST = '3 seconds';

type Left = TenantKey & { name: string } & Pick<OperationRow, 'actor_kind' | 'user_id'>;

/** Goes on with dropping indexes that gave way to a change of their tenant's state: nobody asks for that again. */
export async function goOnDropping({
  database,
  runs,
  logger,
  leaseMs,
}: {
  database: Database;
  runs: Runs;
  logger: Logger;
  leaseMs: number;
}): Promise<void> {
  const left = await database.asSystem((tx) =>
    tx.query<Left>(
      `SELECT i.org_id AS "orgId", i.schema, i.name, o.actor_kind, o.user_id FROM provisioner.tenant_indexes i
       JOIN provisioner.tenants t USING (org_id, schema)
       JOIN LATERAL (SELECT state, cause, ended_at, actor_kind, user_id FROM provisioner.operations
         WHERE org_id = i.org_id AND schema = i.schema AND kind = 'drop_index' AND params ->> 'name' = i.name
         ORDER BY started_at DESC LIMIT 1) o ON o.state = 'cancelled' AND o.cause = 'gives_way'
       WHERE i.state = 'dropping' AND t.step IS NULL AND t.state IN ('ready', 'read_only', 'suspended')
         AND o.ended_at < now() - interval '${REST}' ORDER BY o.ended_at LIMIT ${BATCH}`,
    ),
  );
  for (const { orgId, schema, name, actor_kind: actorKind, user_id: userId } of left) {
    const request = { leaseMs, actor: { actorKind, userId: userId ?? undefined }, params: { name } };
    try {
      const held = await database.asSystem((tx) => beginWithIdle(tx, { orgId, schema }, 'drop_index', request));
      void runs.carryOut(held);
    } catch (error) {
      // Busy meanwhile, e.g. by another process that was quicker: the next pass sees what it is then.
      logger.info({ org_id: orgId, schema, error }, 'dropping an index was not gone on with');
    }
  }
}
