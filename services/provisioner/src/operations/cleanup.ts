import type { Database, Tx } from '@mad/postgres';
import type { Logger } from '@mad/process';
import type { ServerRow } from '../db/entities/server.ts';
import type { TenantRow } from '../db/entities/tenant.ts';
import { firstStep, mayCleanUp, type Leavings, type ObjectKind } from '../domain/plan.ts';
import { removeDatabase } from '../servers/remove-database.ts';
import type { ServerConnections } from '../servers/server-connections.ts';
import { dropRole, lockByName } from '../servers/tenant-database.ts';

const LOCK_WAIT_MS = 5_000;
const BATCH = 100;

export interface CleanupOptions {
  database: Database;
  connections: ServerConnections;
  logger: Logger;
  /** How long the leavings of a failed operation wait for somebody to go on with it, in milliseconds. */
  graceMs: number;
}

interface Leaving {
  cleanup_id: string;
  org_id: string;
  schema: string;
  server_id: string;
  object_kind: ObjectKind;
  object_name: string;
  operation_state: Leavings['operation'];
  current: boolean;
  leased: boolean;
  ended_ms_ago: number;
  /** Null for what is no tenant's. */
  tenant_state: TenantRow['state'] | null;
}

const LEAVINGS_SQL = `
  SELECT r.cleanup_id, r.org_id, r.schema, r.server_id, r.object_kind, r.object_name, o.state AS operation_state,
    coalesce(t.operation_id = r.operation_id, true) AS current, coalesce(t.step_lease_until > now(), false) AS leased,
    coalesce(extract(epoch FROM now() - o.ended_at) * 1000, 0)::float8 AS ended_ms_ago, t.state AS tenant_state
  FROM provisioner.cleanup_records r
  JOIN provisioner.operations o USING (operation_id)
  LEFT JOIN provisioner.tenants t ON t.org_id = r.org_id AND t.schema = r.schema`;

function isDue(leaving: Leaving, graceMs: number): boolean {
  const { operation_state: operation, current, leased, ended_ms_ago: endedMsAgo } = leaving;
  return mayCleanUp({ operation, current, leased, endedMsAgo }, graceMs);
}

/**
 * Removes what operations left on the servers, as far as nobody will go on with them. Returns how many objects it
 * removed. What cannot be removed now is logged and tried again at the next pass.
 */
export async function cleanUp(options: CleanupOptions): Promise<number> {
  const { database, logger, graceMs } = options;
  const found = await database.asSystem((tx) =>
    tx.query<Leaving>(
      `${LEAVINGS_SQL} WHERE r.keep_until IS NULL OR r.keep_until <= now()
       ORDER BY r.object_kind, r.created_at LIMIT ${BATCH}`,
    ),
  );
  let removed = 0;
  // Databases go before roles, as the order of the kinds has it: a role with rights on a database cannot be dropped.
  for (const leaving of found) {
    if (!isDue(leaving, graceMs)) continue;
    const about = { org_id: leaving.org_id, kind: leaving.object_kind, name: leaving.object_name };
    try {
      if (!(await remove(options, leaving))) continue;
      removed += 1;
      logger.info(about, 'removed what an operation had left');
    } catch (error) {
      logger.warn({ ...about, error }, 'removing what an operation had left failed');
    }
  }
  return removed;
}

async function remove({ database, connections, graceMs }: CleanupOptions, leaving: Leaving): Promise<boolean> {
  const [server] = await database.asSystem((tx) =>
    tx.query<ServerRow>(
      `SELECT server_id, name, host, port, sslmode, provisioner_secret, migrator_secret, master_key_version
       FROM provisioner.database_servers WHERE server_id = $1`,
      [leaving.server_id],
    ),
  );
  return connections.asAdmin(server!, async (client) => {
    // The runs of the tenant take this lock too: nobody makes the object while it is removed.
    await lockByName(client, `mad.tenant.${leaving.schema}.${leaving.org_id}`, LOCK_WAIT_MS);
    return database.asSystem(async (tx) => {
      // The row stays locked, so no run begins; and what was read before the lock may be history.
      await tx.execute('SELECT FROM provisioner.tenants WHERE org_id = $1 AND schema = $2 FOR UPDATE', [
        leaving.org_id,
        leaving.schema,
      ]);
      const [now] = await tx.query<Leaving>(`${LEAVINGS_SQL} WHERE r.cleanup_id = $1`, [leaving.cleanup_id]);
      if (now === undefined || !isDue(now, graceMs)) return false;
      if (now.object_kind === 'role') await dropRole(client, now.object_name);
      else await removeDatabase(connections, server!, client, now.object_name);
      await tx.execute('DELETE FROM provisioner.cleanup_records WHERE cleanup_id = $1', [now.cleanup_id]);
      if (now.object_kind !== 'template') await startOver(tx, now);
      return true;
    });
  });
}

/** What the failed tenant had is gone: whoever goes on begins at the beginning. */
async function startOver(tx: Tx, { org_id, schema, tenant_state: state }: Leaving): Promise<void> {
  if (state !== 'failed') return;
  await tx.execute('UPDATE provisioner.tenants SET step = $3 WHERE org_id = $1 AND schema = $2', [
    org_id,
    schema,
    firstStep('provision'),
  ]);
}
