import type { Database } from '@mad/postgres';
import { MINUTE_MS, Rounds, SECOND_MS, type Logger } from '@mad/process';
import { SERVER_COLUMNS, type ServerRow } from '../db/entities/server.ts';
import { followPromotion, SIGHTING, strangeness, type Sighting } from './failover.ts';
import type { ServerConnections } from './server-connections.ts';

/** Measuring a thousand databases looks at 360,000 files: not at every look. */
const SIZE_AGE_MS = 10 * MINUTE_MS;
/** One that did not answer, or has standbys, is looked at so often: it takes tenants again as soon as it is back. */
const AWAY_MS = SECOND_MS;

export interface ServerWatchOptions {
  database: Database;
  connections: ServerConnections;
  logger: Logger;
  /** Time between two looks at a server, in milliseconds. */
  everyMs: number;
}

type Due = ServerRow & { measure: boolean };

interface Found extends Sighting {
  sessions: number;
  active: number;
  max_connections: number;
  size_bytes: number | null;
}

const LOOK_SQL = `
  SELECT count(*) FILTER (WHERE backend_type = 'client backend')::int AS sessions,
    count(*) FILTER (WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid())::int AS active,
    current_setting('max_connections')::int AS max_connections,
    CASE WHEN $1 THEN (SELECT coalesce(sum(pg_database_size(oid)), 0)::float8 FROM pg_database WHERE datname LIKE 'mad\\_%')
      END AS size_bytes,
    ${SIGHTING}
  FROM pg_stat_activity`;

/**
 * Keeps how each server fares: whether it answers, its sessions, its bytes. Any number of processes may: whoever comes first
 * claims the look.
 */
export class ServerWatch {
  readonly #options: ServerWatchOptions;
  readonly #rounds: Rounds;

  constructor(options: ServerWatchOptions) {
    this.#options = options;
    const everyMs = Math.min(options.everyMs, AWAY_MS);
    this.#rounds = new Rounds({ ...options, everyMs, failure: 'looking at the servers failed' }, () => this.#pass());
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  async #pass(): Promise<void> {
    const { database, everyMs } = this.#options;
    const due = await database.asSystem((tx) =>
      tx.query<Due>(
        `INSERT INTO provisioner.server_samples AS p (server_id)
         SELECT server_id FROM provisioner.database_servers
         ON CONFLICT (server_id) DO UPDATE SET claimed_at = now()
           WHERE p.claimed_at < now() - interval '1 millisecond'
             * CASE WHEN p.error = '' AND NOT EXISTS (
                 SELECT FROM provisioner.server_standbys b WHERE b.server_id = p.server_id)
               THEN $1::float8 ELSE least($1::float8, $3::float8) END
         RETURNING server_id, coalesce(sized_at < now() - $2 * interval '1 millisecond', true) AS measure`,
        [everyMs * 0.8, SIZE_AGE_MS, AWAY_MS * 0.8],
      ),
    );
    if (due.length === 0) return;
    const servers = await database.asSystem((tx) =>
      tx.query<ServerRow>(`SELECT ${SERVER_COLUMNS} FROM provisioner.database_servers WHERE server_id = ANY ($1)`, [
        due.map(({ server_id: serverId }) => serverId),
      ]),
    );
    await Promise.all(
      servers.map((server) => this.#look(server, due.find((one) => one.server_id === server.server_id)!.measure)),
    );
  }

  /** The primary was seen for the first time, or has been promoted where it is. */
  async #note({ server_id: serverId }: ServerRow, { system, timeline }: Sighting): Promise<void> {
    await this.#options.database.asSystem((tx) =>
      tx.execute(
        `UPDATE provisioner.database_servers SET system_identifier = $2, timeline = $3
         WHERE server_id = $1 AND timeline < $3 AND coalesce(system_identifier, $2) = $2`,
        [serverId, system, timeline],
      ),
    );
  }

  async #look(server: ServerRow, measure: boolean): Promise<void> {
    const { database, connections, logger } = this.#options;
    let found: Found | undefined;
    let error = '';
    try {
      // A connection of its own: those of the pool may all be at work for minutes.
      const login = connections.adminLogin(server, 'postgres');
      found = await connections.as(server, login, async (client) => {
        return (await client.query<Found>(LOOK_SQL, [measure])).rows[0]!;
      });
    } catch (cause) {
      logger.warn({ error: cause, server: server.name }, 'a server does not answer');
      error = 'the server does not answer';
    }
    if (found !== undefined) error = strangeness(server, found) ?? '';
    if (found !== undefined && error !== '') logger.warn({ server: server.name, error }, 'a server is not the primary');
    if (error !== '') await followPromotion(this.#options, server);
    else if (found!.timeline !== server.timeline) await this.#note(server, found!);
    await database.asSystem((tx) =>
      tx.execute(
        `UPDATE provisioner.server_samples SET sampled_at = now(), error = $2, sessions = coalesce($3, sessions),
           active = coalesce($4, active), max_connections = coalesce($5, max_connections),
           size_bytes = coalesce($6, size_bytes), sized_at = CASE WHEN $6::float8 IS NULL THEN sized_at ELSE now() END
         WHERE server_id = $1`,
        [
          server.server_id,
          error,
          found?.sessions ?? null,
          found?.active ?? null,
          found?.max_connections ?? null,
          found?.size_bytes ?? null,
        ],
      ),
    );
  }
}
