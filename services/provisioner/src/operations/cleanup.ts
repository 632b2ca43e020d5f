import type { Database, Tx } from '@mad/postgres';
import type { Logger } from '@mad/process';
import pMap from 'p-map';
import { SERVER_COLUMNS, type ServerRow } from '../db/entities/server.ts';
import type { TenantRow } from '../db/entities/tenant.ts';
import { firstStep, mayCleanUp, type Leavings, type ObjectKind } from '../domain/plan.ts';
import { removeDatabase } from '../servers/remove-database.ts';
import type { ServerConnections } from '../servers/server-connections.ts';
import { dropRole, lockByName } from '../servers/tenant-database.ts';

const LOCK_WAIT_MS = 5_000;
const PAGE = 100;
/** Removals tried on one server in a round: the others' turn comes soon. */
const PER_SERVER = 100;
/** Each holds a connection of the second login while it removes something; routes are read with the others. */
const SERVERS_AT_ONCE = 2;

export interface CleanupOptions {
  database: Database;
  connections: ServerConnections;
  logger: Logger;
  /** How long the leavings of a failed operation wait for somebody to go on with it, in milliseconds. */
  graceMs: number;
  /** Aborting ends the round after what is being removed. */
  signal?: AbortSignal;
}

/** The last object that was tried on a server. */
interface Place {
  kind: string;
  name: string;
}

/** Where the rounds before stopped, by server: what cannot be removed does not stand in front of the rest. */
export type Places = Map<string, Place>;

const BEFORE_ALL: Place = { kind: '', name: '' };

interface Leaving {
  cleanup_id: string;
  org_id: string;
  schema: string;
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
  SELECT r.cleanup_id, r.org_id, r.schema, r.object_kind, r.object_name, o.state AS operation_state,
    coalesce(t.operation_id = r.operation_id, true) AS current, coalesce(t.step_lease_until > now(), false) AS leased,
    coalesce(extract(epoch FROM now() - o.ended_at) * 1000, 0)::float8 AS ended_ms_ago, t.state AS tenant_state
  FROM provisioner.cleanup_records r
  JOIN provisioner.operations o USING (operation_id)
  LEFT JOIN provisioner.tenants t ON t.org_id = r.org_id AND t.schema = r.schema`;
const NOT_KEPT = '(r.keep_until IS NULL OR r.keep_until <= now())';

function isDue(leaving: Leaving, graceMs: number): boolean {
  const { operation_state: operation, current, leased, ended_ms_ago: endedMsAgo } = leaving;
  return mayCleanUp({ operation, current, leased, endedMsAgo }, graceMs);
}

/**
 * One round of removing what operations left on the servers, as far as nobody will go on with them: every server has its
 * turn, and one that does not answer costs the others nothing. Returns how many objects it removed. What cannot be removed
 * now is logged and tried again in a later round; `places` goes from round to round.
 */
export async function cleanUp(options: CleanupOptions, places: Places = new Map()): Promise<number> {
  const servers = await options.database.asSystem((tx) =>
    tx.query<ServerRow>(
      `SELECT ${SERVER_COLUMNS} FROM provisioner.database_servers s WHERE EXISTS (
         SELECT FROM provisioner.cleanup_records r WHERE r.server_id = s.server_id AND ${NOT_KEPT})
       ORDER BY server_id`,
    ),
  );
  const removed = await pMap(servers, (server) => cleanUpServer(options, server, places), {
    concurrency: SERVERS_AT_ONCE,
  });
  return removed.reduce((sum, one) => sum + one, 0);
}

async function cleanUpServer(options: CleanupOptions, server: ServerRow, places: Places): Promise<number> {
  const { logger, graceMs, signal } = options;
  let place = places.get(server.server_id) ?? BEFORE_ALL;
  let tried = 0;
  let removed = 0;
  for (;;) {
    const page = await leavingsAfter(options, server, place);
    for (const leaving of page) {
      place = { kind: leaving.object_kind, name: leaving.object_name };
      if (!isDue(leaving, graceMs)) continue;
      if (signal?.aborted || tried === PER_SERVER) return removed;
      if (tried === 0 && !(await answers(options, server))) return removed;
      tried += 1;
      places.set(server.server_id, place);
      const about = { org_id: leaving.org_id, kind: leaving.object_kind, name: leaving.object_name };
      try {
        if (!(await remove(options, server, leaving))) continue;
        removed += 1;
        logger.info(about, 'removed what an operation had left');
      } catch (error) {
        logger.warn({ ...about, error }, 'removing what an operation had left failed');
        if (!(await answers(options, server))) return removed;
      }
    }
    if (page.length === PAGE) continue;
    // The next round begins at the beginning.
    places.delete(server.server_id);
    return removed;
  }
}

/** Databases come before roles, as the order of the kinds has it: a role with rights on a database cannot be dropped. */
function leavingsAfter({ database }: CleanupOptions, server: ServerRow, { kind, name }: Place): Promise<Leaving[]> {
  return database.asSystem((tx) =>
    tx.query<Leaving>(
      `${LEAVINGS_SQL} WHERE r.server_id = $1 AND (r.object_kind, r.object_name) > ($2, $3) AND ${NOT_KEPT}
       ORDER BY r.object_kind, r.object_name LIMIT ${PAGE}`,
      [server.server_id, kind, name],
    ),
  );
}

/** Whether there is any use in trying; where not, the rest of the server's leavings waits for another round. */
async function answers({ connections, logger }: CleanupOptions, server: ServerRow): Promise<boolean> {
  try {
    await connections.probe(server);
    return true;
  } catch (error) {
    logger.warn({ server: server.name, error }, 'a server with leavings does not answer');
    return false;
  }
}

async function remove(
  { database, connections, graceMs }: CleanupOptions,
  server: ServerRow,
  leaving: Leaving,
): Promise<boolean> {
  return connections.asAdmin(server, async (client) => {
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
      else await removeDatabase(connections, server, client, now.object_name);
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
