import type { Client } from '@connectrpc/connect';
import { MINUTE_MS, SECOND_MS, type Logger } from '@mad/process';
import type { PrewarmService } from '@mad/proto/results';
import { LRUCache } from 'lru-cache';

/** Later than that the first read has opened the database itself. */
const PATIENCE_MS = 2 * SECOND_MS;
/** Whoever signed in a moment ago has warmed it: an open connection is kept for minutes. */
const AGAIN_MS = MINUTE_MS;
const MAX_REMEMBERED = 10_000;
/** Signing in never makes more work than this wait for an answer. */
const MAX_UNDER_WAY = 8;

/** Has results open the databases of those who sign in. A courtesy: it delays nobody and fails nothing. */
export class Prewarming {
  readonly #results: Client<typeof PrewarmService>;
  readonly #logger: Logger;
  readonly #recent = new LRUCache<string, true>({ max: MAX_REMEMBERED, ttl: AGAIN_MS });
  readonly #stop = new AbortController();
  #underWay = 0;

  constructor(results: Client<typeof PrewarmService>, logger: Logger) {
    this.#results = results;
    this.#logger = logger;
  }

  /** Somebody of this organization was given a token. Returns at once. */
  warm(orgId: string): void {
    if (this.#underWay >= MAX_UNDER_WAY || this.#recent.has(orgId)) return;
    this.#recent.set(orgId, true);
    this.#underWay += 1;
    void this.#ask(orgId).finally(() => (this.#underWay -= 1));
  }

  /** Gives up what is under way. */
  close(): void {
    this.#stop.abort();
  }

  async #ask(orgId: string): Promise<void> {
    try {
      await this.#results.prewarmTenant({ orgId }, { timeoutMs: PATIENCE_MS, signal: this.#stop.signal });
    } catch (error) {
      this.#logger.debug({ err: error, org_id: orgId }, 'results opened no database ahead of time');
    }
  }
}
