import type { Database, Tx } from '@mad/postgres';
import type { Logger } from '@mad/process';
import { SERVER_COLUMNS, type ServerRow } from '../db/entities/server.ts';
import type { ServerConnections } from '../servers/server-connections.ts';
import { clearPassword, endSessions, tryLockByName, unlockByName } from '../servers/tenant-database.ts';

/** Logins of one server that a pass looks at. */
const BATCH = 100;

export interface RetirementOptions {
  database: Database;
  connections: ServerConnections;
  logger: Logger;
}

interface Due {
  org_id: string;
  schema: string;
  slot: string;
  role_name: string;
  active: boolean;
  sessions_before: string | null;
}

const DUE_SQL = `
  SELECT c.org_id, c.schema, c.slot, c.role_name, c.active, c.sessions_before::text
  FROM provisioner.tenant_credentials c JOIN provisioner.tenants t USING (org_id, schema)
  WHERE c.retire_at <= now() AND t.state NOT IN ('erasing', 'erased')`;

/**
 * Ends what is left of logins that were replaced and whose grace is over: their sessions and, where a login is not in
 * use again, its password. Not an operation, so that a suspension never waits for it. Returns how many logins; what
 * cannot be ended now is logged and tried again at the next pass. Servers wait for no other.
 */
export async function retireLogins(options: RetirementOptions): Promise<number> {
  const servers = await options.database.asSystem((tx) =>
    tx.query<ServerRow>(`SELECT ${SERVER_COLUMNS} FROM provisioner.database_servers`),
  );
  const retired = await Promise.all(servers.map((server) => retireOn(options, server)));
  return retired.reduce((sum, count) => sum + count, 0);
}

async function retireOn({ database, connections, logger }: RetirementOptions, server: ServerRow): Promise<number> {
  const found = await database.asSystem((tx) =>
    tx.query<Due>(`${DUE_SQL} AND t.server_id = $1 ORDER BY c.retire_at LIMIT ${BATCH}`, [server.server_id]),
  );
  let retired = 0;
  for (const login of found) {
    const about = { org_id: login.org_id, schema: login.schema, login: login.role_name };
    let reached = false;
    try {
      const sessions = await connections.asAdmin(server, async (client) => {
        reached = true;
        // A rotation of the tenant holds this lock from before it gives the login a new password until it has switched.
        const name = `mad.tenant.${login.schema}.${login.org_id}`;
        if (!(await tryLockByName(client, name))) return undefined;
        try {
          const [now] = await database.asSystem((tx) => stillDue(tx, login));
          if (now === undefined) return undefined;
          if (!now.active) await clearPassword(client, now.role_name);
          const ended = await endSessions(client, now.role_name, now.sessions_before);
          await database.asSystem((tx) => forget(tx, now));
          return ended;
        } finally {
          await unlockByName(client, name);
        }
      });
      if (sessions === undefined) continue;
      retired += 1;
      logger.info({ ...about, sessions }, 'ended what was left of a replaced login');
    } catch (error) {
      logger.warn({ ...about, error }, 'ending what was left of a replaced login failed');
      // The server is away: its others wait for the next pass.
      if (!reached) return retired;
    }
  }
  return retired;
}

/** What was read before the lock may be history. */
function stillDue(tx: Tx, { org_id: orgId, schema, slot }: Due): Promise<Due[]> {
  return tx.query(`${DUE_SQL} AND c.org_id = $1 AND c.schema = $2 AND c.slot = $3`, [orgId, schema, slot]);
}

async function forget(tx: Tx, { org_id: orgId, schema, slot }: Due): Promise<void> {
  await tx.execute(
    `UPDATE provisioner.tenant_credentials SET retire_at = NULL, sessions_before = NULL
     WHERE org_id = $1 AND schema = $2 AND slot = $3`,
    [orgId, schema, slot],
  );
}
