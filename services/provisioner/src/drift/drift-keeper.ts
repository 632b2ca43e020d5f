import { Rounds, type Logger } from '@mad/process';
import { SERVER_COLUMNS, type ServerRow } from '../db/entities/server.ts';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import type { LookContext } from './look.ts';
import { lookAndNote } from './noted.ts';

/** Tenants of one server that a round looks at. */
const PER_ROUND = 20;

export interface DriftKeeperOptions extends LookContext {
  logger: Logger;
  /** A tenant is looked at so long after the last look, in hours; 0: only when asked for. */
  everyHours: number;
  /** Time between two rounds, in milliseconds. */
  everyMs: number;
}

/**
 * Looks for drift in every tenant's database, longest ago first, one at a time on each server, and notes what it finds.
 * Repairs nothing: that is asked for. Several processes may: at worst one looks where another just did.
 */
export class DriftKeeper {
  readonly #options: DriftKeeperOptions;
  readonly #rounds: Rounds;

  constructor(options: DriftKeeperOptions) {
    this.#options = options;
    this.#rounds = new Rounds({ ...options, failure: 'looking for drift failed' }, (signal) => this.#round(signal));
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { database, everyHours } = this.#options;
    if (everyHours === 0) return;
    const servers = await database.asSystem((tx) =>
      tx.query<ServerRow>(`SELECT ${SERVER_COLUMNS} FROM provisioner.database_servers`),
    );
    await Promise.all(servers.map((server) => this.#lookOn(server, signal)));
  }

  async #lookOn(server: ServerRow, signal: AbortSignal): Promise<void> {
    const { database, everyHours, logger } = this.#options;
    const due = await database.asSystem((tx) =>
      tx.query<TenantRow>(
        `SELECT ${TENANT_COLUMNS} FROM provisioner.tenants
         WHERE server_id = $1 AND state IN ('ready', 'read_only', 'suspended') AND step IS NULL
           AND coalesce(drift_looked_at, ready_at) < now() - $2 * interval '1 hour'
         ORDER BY coalesce(drift_looked_at, ready_at) LIMIT $3`,
        [server.server_id, everyHours, PER_ROUND],
      ),
    );
    for (const tenant of due) {
      if (signal.aborted) return;
      const about = { org_id: tenant.org_id, schema: tenant.schema };
      try {
        const { differences } = await lookAndNote(this.#options, server, tenant);
        if (differences.length > 0) {
          const names = differences.map(({ difference, kind, name }) => `${difference} ${kind} ${name}`);
          logger.warn({ ...about, differences: names.slice(0, PER_ROUND) }, 'a tenant drifted');
        }
      } catch (error) {
        // Perhaps the server is away: its other tenants wait for the next round.
        logger.warn({ ...about, error }, 'looking for drift failed');
        return;
      }
    }
  }
}
