import type { Database } from '@mad/postgres';
import { sleep, type Logger } from '@mad/process';
import type { TenantStateName } from '../domain/tenant-state.ts';

/** How soon a change is seen: one small read for all streams of a schema. */
const POLL_MS = 100;
const BATCH = 500;

/** One line of the change log. */
export interface Change {
  seq: number;
  orgId: string;
  generation: number;
  state: TenantStateName;
}

/** Where one schema's log stands, polled while somebody waits. */
interface Standing {
  lastSeq: number;
  waiters: Set<() => void>;
}

/** The change log as the streams read it. */
export class ChangeFeed {
  readonly #database: Database;
  readonly #logger: Logger;
  readonly #standings = new Map<string, Standing>();
  readonly #stop = new AbortController();
  #polling: Promise<void> | undefined;

  constructor(database: Database, logger: Logger) {
    this.#database = database;
    this.#logger = logger;
  }

  /** The last change's number; 0 when there is none. */
  async lastSeq(schema: string): Promise<number> {
    const [row] = await this.#database.asSystem((tx) =>
      tx.query<{ last_seq: number }>('SELECT last_seq FROM provisioner.tenant_change_counters WHERE schema = $1', [
        schema,
      ]),
    );
    return row?.last_seq ?? 0;
  }

  /** The changes after a number, oldest first, 500 at most. */
  async after(schema: string, seq: number): Promise<Change[]> {
    return this.#database.asSystem((tx) =>
      tx.query<Change>(
        `SELECT seq, org_id AS "orgId", generation, state FROM provisioner.tenant_changes
         WHERE schema = $1 AND seq > $2 ORDER BY seq LIMIT ${BATCH}`,
        [schema, seq],
      ),
    );
  }

  /** Resolves when the log has grown beyond `seq`, when `ms` are over, or when the feed closes or the signal aborts. */
  async grown(schema: string, seq: number, ms: number, signal: AbortSignal): Promise<void> {
    let standing = this.#standings.get(schema);
    if (standing === undefined) {
      standing = { lastSeq: 0, waiters: new Set() };
      this.#standings.set(schema, standing);
    }
    if (standing.lastSeq > seq || signal.aborted || this.#stop.signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const { waiters } = standing;
    const wake = (): void => resolve();
    const timer = setTimeout(wake, ms);
    waiters.add(wake);
    signal.addEventListener('abort', wake);
    this.#polling ??= this.#poll();
    await promise;
    clearTimeout(timer);
    signal.removeEventListener('abort', wake);
    waiters.delete(wake);
  }

  get closed(): boolean {
    return this.#stop.signal.aborted;
  }

  /** Lets every stream end. */
  async close(): Promise<void> {
    this.#stop.abort();
    for (const { waiters } of this.#standings.values()) for (const wake of waiters) wake();
    await this.#polling;
  }

  async #poll(): Promise<void> {
    while (!this.#stop.signal.aborted && this.#anyoneWaits()) {
      try {
        await this.#look();
      } catch (error) {
        this.#logger.warn({ error }, 'reading the change log failed');
      }
      await sleep(POLL_MS, this.#stop.signal).catch(() => undefined);
    }
    this.#polling = undefined;
  }

  #anyoneWaits(): boolean {
    return [...this.#standings.values()].some(({ waiters }) => waiters.size > 0);
  }

  async #look(): Promise<void> {
    const rows = await this.#database.asSystem((tx) =>
      tx.query<{ schema: string; last_seq: number }>('SELECT schema, last_seq FROM provisioner.tenant_change_counters'),
    );
    for (const { schema, last_seq: lastSeq } of rows) {
      const standing = this.#standings.get(schema);
      if (standing === undefined || lastSeq <= standing.lastSeq) continue;
      standing.lastSeq = lastSeq;
      for (const wake of standing.waiters) wake();
    }
  }
}
