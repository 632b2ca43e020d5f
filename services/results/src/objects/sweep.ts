import type { ObjectStore } from '@mad/object-store';
import { MINUTE_MS, type Logger } from '@mad/process';
import type { Tenants } from '@mad/tenancy';
import { dropObject, objectKey, type NotedObject } from './object-notes.ts';

/** An object is written within a minute or given up; so long after it was noted nobody is still at it. */
export const WRITING_MOST_MS = 10 * MINUTE_MS;
/** Removed in one round at most. */
const ROUND = 500;

/** Removes objects that were given up, and those whose writer died, organization by organization. */
export class ObjectSweeper {
  readonly #tenants: Tenants;
  readonly #objects: ObjectStore;
  readonly #logger: Logger;
  readonly #asked = new Set<string>();
  readonly #running = new Map<string, Promise<void>>();

  constructor(tenants: Tenants, objects: ObjectStore, logger: Logger) {
    this.#tenants = tenants;
    this.#objects = objects;
    this.#logger = logger;
  }

  /**
   * Sweeps one organization beside what the caller does. There is no list of organizations here, and idle databases are
   * not woken: whoever has just given something up, or begins a job, asks for it.
   */
  soon(orgId: string): void {
    // A round that is under way may have looked before.
    this.#asked.add(orgId);
    if (this.#running.has(orgId)) return;
    this.#running.set(orgId, this.#sweepWhileAsked(orgId));
  }

  async #sweepWhileAsked(orgId: string): Promise<void> {
    while (this.#asked.delete(orgId)) {
      await this.sweep(orgId).catch((error: unknown) =>
        this.#logger.warn({ org_id: orgId, error }, 'objects were not swept'),
      );
    }
    this.#running.delete(orgId);
  }

  /** Has an object removed whose writer is done with it and has no use for it. Does its best: what it leaves is found by its note. */
  async giveUp(orgId: string, object: NotedObject): Promise<void> {
    await this.#tenants.transact(orgId, (tx) => dropObject(tx, object)).catch(() => undefined);
    this.soon(orgId);
  }

  /** Removes what is to go; returns how many objects went. */
  async sweep(orgId: string): Promise<number> {
    let removed = 0;
    for (;;) {
      // First it is taken from its writer, for good: from then on nothing can refer to it.
      const rows = await this.#tenants.transact(orgId, (tx) =>
        tx.query<{ object_id: string; purpose: NotedObject['purpose']; owner_id: string }>(
          `UPDATE stored_objects SET state = 'dropped' WHERE object_id IN (
              SELECT object_id FROM stored_objects WHERE state = 'dropped'
                OR (state = 'writing' AND created_at < now() - make_interval(secs => $1::float8 / 1000))
              LIMIT ${ROUND} FOR UPDATE SKIP LOCKED)
            RETURNING object_id, purpose, owner_id`,
          [WRITING_MOST_MS],
        ),
      );
      for (const { object_id: objectId, purpose, owner_id: ownerId } of rows) {
        await this.#objects.delete(objectKey(orgId, { objectId, purpose, ownerId }));
      }
      if (rows.length > 0) {
        await this.#tenants.transact(orgId, (tx) =>
          tx.execute(`DELETE FROM stored_objects WHERE object_id = ANY ($1::uuid[]) AND state = 'dropped'`, [
            rows.map(({ object_id: id }) => id),
          ]),
        );
      }
      removed += rows.length;
      if (rows.length < ROUND) return removed;
    }
  }

  /** Resolves when the rounds under way have ended. */
  async close(): Promise<void> {
    await Promise.all(this.#running.values());
  }
}
