import type { Database } from '@mad/postgres';
import { sleep, type Logger } from '@mad/process';
import { cleanUp, type CleanupOptions } from './cleanup.ts';
import type { Runs } from './runs.ts';

const BATCH = 100;

export interface SweeperOptions extends CleanupOptions {
  database: Database;
  runs: Runs;
  logger: Logger;
  /** Time between two passes, in milliseconds. */
  everyMs: number;
}

/**
 * Goes on with what dead processes left undone, then removes what nobody will go on with: once at the start and again
 * and again. Any number of processes may sweep: leases and locks decide who does what.
 */
export class Sweeper {
  readonly #options: SweeperOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  constructor(options: SweeperOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { everyMs, logger } = this.#options;
    while (!this.#stop.signal.aborted) {
      try {
        await this.#pass();
      } catch (error) {
        logger.warn({ error }, 'a sweep failed');
      }
      await sleep(everyMs, this.#stop.signal).catch(() => undefined);
    }
  }

  async #pass(): Promise<void> {
    const { database, runs } = this.#options;
    const undone = await database.asSystem((tx) =>
      tx.query<{ org_id: string; schema: string }>(
        `SELECT t.org_id, t.schema FROM provisioner.tenants t JOIN provisioner.operations o USING (operation_id)
         WHERE t.step IS NOT NULL AND o.state = 'running' AND (t.step_owner IS NULL OR t.step_lease_until <= now())
         ORDER BY t.created_at LIMIT ${BATCH}`,
      ),
    );
    // Not waited for: a backup may take hours, and others have work to do meanwhile.
    for (const { org_id: orgId, schema } of undone) runs.resumeLater({ orgId, schema });
    if (!this.#stop.signal.aborted) await cleanUp(this.#options);
  }
}
