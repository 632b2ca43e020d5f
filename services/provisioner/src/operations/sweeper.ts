import type { Database } from '@mad/postgres';
import { Rounds, type Logger } from '@mad/process';
import { beginDrops } from '../indexes/left-over.ts';
import type { Runs } from './runs.ts';

const BATCH = 100;

export interface SweeperOptions {
  database: Database;
  runs: Runs;
  logger: Logger;
  leaseMs: number;
  /** Time between two passes, in milliseconds. */
  everyMs: number;
}

/**
 * Goes on with what dead processes left undone and with what gave way: once at the start and again and again. Any number of
 * processes may sweep: leases decide who does what.
 */
export class Sweeper {
  readonly #options: SweeperOptions;
  readonly #rounds: Rounds;

  constructor(options: SweeperOptions) {
    this.#options = options;
    this.#rounds = new Rounds({ ...options, failure: 'a sweep failed' }, () => this.#pass());
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  async #pass(): Promise<void> {
    const { database, runs, leaseMs } = this.#options;
    // A row that somebody holds is in somebody's hands: a claim would wait for it, with a connection, at every pass.
    const undone = await database.asSystem((tx) =>
      tx.query<{ org_id: string; schema: string }>(
        `SELECT t.org_id, t.schema FROM provisioner.tenants t JOIN provisioner.operations o USING (operation_id)
         WHERE t.step IS NOT NULL AND o.state = 'running' AND (t.step_owner IS NULL OR t.step_lease_until <= now())
         ORDER BY t.created_at LIMIT ${BATCH} FOR UPDATE OF t SKIP LOCKED`,
      ),
    );
    // Not waited for: a backup may take hours, and others have work to do meanwhile.
    for (const { org_id: orgId, schema } of undone) runs.resumeLater({ orgId, schema });
    for (const held of await beginDrops(database, leaseMs)) void runs.carryOut(held);
  }
}
