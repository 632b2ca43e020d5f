import type { Database } from '@mad/postgres';
import { Rounds, SECOND_MS, type Logger } from '@mad/process';
import type { ConnectionShareRow } from '../db/entities/connection-share.ts';
import type { ServerRow } from '../db/entities/server.ts';
import type { ServerConnections } from '../servers/server-connections.ts';

const EVERY_MS = SECOND_MS;
const END_TIMEOUT_MS = 5_000;

export interface ShareKeeperOptions {
  database: Database;
  connections: ServerConnections;
  logger: Logger;
  /** How long this process must have served before it takes a share away: its absence is nobody else's fault. */
  patienceMs: number;
}

/**
 * Takes back the shares of processes that did not renew them: ends what connections they still have, and only then lets
 * others have the room. A process whose lease is over opens nothing, so what was ended stays ended.
 */
export class ShareKeeper {
  readonly #options: ShareKeeperOptions;
  readonly #rounds: Rounds;
  readonly #began = performance.now();

  constructor(options: ShareKeeperOptions) {
    this.#options = options;
    const { logger } = options;
    const failure = 'taking back connection shares failed';
    this.#rounds = new Rounds({ everyMs: EVERY_MS, logger, failure }, () => this.#takeBack());
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  async #takeBack(): Promise<void> {
    const { database, logger, patienceMs } = this.#options;
    const patient = performance.now() - this.#began < patienceMs;
    const over = await database.asSystem((tx) =>
      tx.query<ServerRow & Pick<ConnectionShareRow, 'node' | 'expires_at'>>(
        `SELECT c.node, c.expires_at, s.server_id, s.name, s.host, s.port, s.sslmode, s.provisioner_secret,
           s.migrator_secret, s.master_key_version
         FROM provisioner.connection_shares c JOIN provisioner.database_servers s USING (server_id)
         WHERE c.expires_at = 'epoch' OR (c.expires_at < now() AND NOT $1)`,
        [patient],
      ),
    );
    await Promise.all(
      over.map(async (row) => {
        try {
          await this.#end(row, row.node);
          await database.asSystem((tx) =>
            tx.execute(
              `DELETE FROM provisioner.connection_shares WHERE server_id = $1 AND node = $2 AND expires_at < now()`,
              [row.server_id, row.node],
            ),
          );
          logger.info({ server: row.name, node: row.node }, 'took back the connections of a process that is gone');
        } catch (error) {
          logger.warn(
            { error, server: row.name, node: row.node },
            'the connections of a process could not be taken back',
          );
        }
      }),
    );
  }

  async #end(server: ServerRow, node: string): Promise<void> {
    await this.#options.connections.asAdmin(server, async (client) => {
      const { rows } = await client.query<{ ended: boolean }>(
        `SELECT pg_terminate_backend(pid, $2) AS ended FROM pg_stat_activity WHERE starts_with(application_name, $1 || '/')`,
        [node, END_TIMEOUT_MS],
      );
      if (rows.some(({ ended }) => !ended)) throw new Error('a session did not end in time');
    });
  }
}
