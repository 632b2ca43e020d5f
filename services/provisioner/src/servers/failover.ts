import type { Database } from '@mad/postgres';
import type { Logger } from '@mad/process';
import type { ServerRow } from '../db/entities/server.ts';
import type { StandbyRow } from '../db/entities/server-standby.ts';
import { announceServer } from '../provisioning/changes.ts';
import type { ServerAddress, ServerConnections } from './server-connections.ts';

/** What a server says it is. */
export interface Sighting {
  standby: boolean;
  /** The cluster, as its control file names it. Copies have the same. */
  system: string;
  /** Goes up with each promotion. 0 of a standby. */
  timeline: number;
}

/** The columns of a Sighting. The control file's timeline is the last checkpoint's, which a promotion does not wait for. */
export const SIGHTING = `pg_is_in_recovery() AS standby,
  (SELECT system_identifier::text FROM pg_control_system()) AS system,
  CASE WHEN pg_is_in_recovery() THEN 0
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END AS timeline`;

/** By what the primary of a server is known. */
export type Known = Pick<ServerRow, 'system_identifier' | 'timeline'>;

/** Why what was seen at a server's address is not its primary; undefined when it is. */
export function strangeness({ system_identifier: system, timeline }: Known, seen: Sighting): string | undefined {
  if (system !== null && seen.system !== system) return 'the server is another one than was registered';
  if (seen.standby) return 'the server is a standby';
  if (seen.timeline < timeline) return 'the server was left behind when a standby took over';
  return undefined;
}

interface Options {
  database: Database;
  connections: ServerConnections;
  logger: Logger;
}

/** Asks a server, at any of its addresses, what it is. Rejects when it does not answer. */
export function sight(connections: ServerConnections, server: ServerRow, at: ServerAddress): Promise<Sighting> {
  return connections.as(at, connections.adminLogin(server, 'postgres'), async (client) => {
    return (await client.query<Sighting>(`SELECT ${SIGHTING}`)).rows[0]!;
  });
}

/**
 * Looks among a server's standbys for one that was promoted, and leads everybody there: it is of the same cluster, out of
 * recovery and on a newer timeline than the primary known so far, which a copy or a primary that comes back is not. We
 * promote nothing: whoever does makes sure that the old primary is off (libpq's `target_session_attrs=read-write` would
 * take whichever answers first). False when there is none.
 */
export async function followPromotion(options: Options, server: ServerRow): Promise<boolean> {
  const { database, connections, logger } = options;
  const standbys = await database.asSystem((tx) =>
    tx.query<StandbyRow>(
      'SELECT server_id, host, port, sslmode FROM provisioner.server_standbys WHERE server_id = $1',
      [server.server_id],
    ),
  );
  // One that was never seen cannot be told from a stranger.
  if (server.system_identifier === null) return false;
  const seen = await Promise.all(
    standbys.map(async (at) => ({ at, seen: await sight(connections, server, at).catch(() => undefined) })),
  );
  const promoted = seen
    .flatMap(({ at, seen: one }) => (one === undefined || one.standby ? [] : [{ at, ...one }]))
    .filter(({ system, timeline }) => system === server.system_identifier && timeline > server.timeline)
    .sort((a, b) => b.timeline - a.timeline)[0];
  if (promoted === undefined) return false;
  const { at, timeline } = promoted;
  const followed = await database.asSystem(async (tx) => {
    const moved = await tx.execute(
      `UPDATE provisioner.database_servers SET host = $2, port = $3, sslmode = $4, timeline = $5, promoted_at = now(),
         updated_at = now() WHERE server_id = $1 AND timeline < $5`,
      [server.server_id, at.host, at.port, at.sslmode, timeline],
    );
    // Another process did.
    if (moved === 0) return false;
    await tx.execute('DELETE FROM provisioner.server_standbys WHERE server_id = $1 AND host = $2 AND port = $3', [
      server.server_id,
      at.host,
      at.port,
    ]);
    // It may come back as a standby, and be promoted some day.
    await tx.execute(
      `INSERT INTO provisioner.server_standbys (server_id, host, port, sslmode) VALUES ($1, $2, $3, $4)
       ON CONFLICT DO NOTHING`,
      [server.server_id, server.host, server.port, server.sslmode],
    );
    await announceServer(tx, server.server_id);
    return true;
  });
  const [from, to] = [`${server.host}:${server.port}`, `${at.host}:${at.port}`];
  if (followed) logger.warn({ server: server.name, from, to, timeline }, 'a standby took over');
  return followed;
}

/** Why an address cannot be a standby's of this server; undefined when it is one. */
export async function standbyProblem(
  connections: ServerConnections,
  server: ServerRow,
  at: ServerAddress,
): Promise<string | undefined> {
  const [primary, seen] = await Promise.all([
    sight(connections, server, server).catch(() => undefined),
    sight(connections, server, at).catch(() => undefined),
  ]);
  if (seen === undefined) return 'does not answer, or does not let the provisioner in';
  if (!seen.standby) return 'is no standby';
  const system = primary?.system ?? server.system_identifier;
  return system === seen.system ? undefined : `is no copy of ${server.name}`;
}
