import { Code, ConnectError, type Client } from '@connectrpc/connect';
import { backoff, HOUR_MS, SECOND_MS, sleep, type Logger } from '@mad/process';
import type { RouteService, WatchTenantChangesResponse } from '@mad/proto/provisioner';

const RECONNECT = { baseMs: 100, maxMs: 2 * SECOND_MS };
/** A stream is renewed after this long, so that none outlives the process it was meant for. */
const STREAM_MS = HOUR_MS;

/** Who listens to the change log. */
export interface ChangeListener {
  /** A tenant changed. */
  onChange(change: WatchTenantChangesResponse): void;
  /** Everything up to `seq` is known. `complete` is false when changes before it may have been missed. */
  onStanding(seq: bigint, complete: boolean): void;
}

export interface ChangeWatchOptions {
  client: Client<typeof RouteService>;
  schema: string;
  /** Silence for longer than this, in milliseconds, means that the stream is dead. */
  silenceMs: number;
  listener: ChangeListener;
  logger: Logger;
}

/**
 * Follows the provisioner's change log. The log is numbered without gaps and a new stream starts after the last number
 * seen, so a lost connection delays news and never loses any.
 */
export class ChangeWatch {
  readonly #options: ChangeWatchOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  /** The last change seen; -1 before the log's standing is known. */
  #seq = -1n;
  #heardAt = Number.NEGATIVE_INFINITY;
  /** A stream first delivers what was missed; until it says where the log stands, more of that may be to come. */
  #caughtUp = false;

  constructor(options: ChangeWatchOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  /** Whether what was heard is recent: then nothing can have changed without our knowing for long. */
  isLive(): boolean {
    return this.#caughtUp && performance.now() - this.#heardAt <= this.#options.silenceMs;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { logger, schema } = this.#options;
    const stopped = this.#stop.signal;
    for (let attempt = 0; !stopped.aborted; attempt += 1) {
      const before = this.#heardAt;
      try {
        await this.#follow(stopped);
      } catch (error) {
        if (!stopped.aborted) logger.warn({ error, schema, seq: String(this.#seq) }, 'the tenant change log was lost');
      }
      if (this.#heardAt !== before) attempt = 0;
      this.#heardAt = Number.NEGATIVE_INFINITY;
      this.#caughtUp = false;
      await sleep(backoff(attempt, RECONNECT), stopped).catch(() => undefined);
    }
  }

  async #follow(stopped: AbortSignal): Promise<void> {
    const { client, schema, silenceMs } = this.#options;
    const silent = new AbortController();
    const hush = (): void => silent.abort(new ConnectError('the change log fell silent', Code.DeadlineExceeded));
    let timer = setTimeout(hush, silenceMs);
    try {
      const signal = AbortSignal.any([stopped, silent.signal]);
      const request = { schema, afterSeq: this.#seq };
      for await (const change of client.watchTenantChanges(request, { signal, timeoutMs: STREAM_MS })) {
        clearTimeout(timer);
        timer = setTimeout(hush, silenceMs);
        this.#take(change);
        this.#heardAt = performance.now();
      }
    } finally {
      clearTimeout(timer);
      silent.abort();
    }
  }

  #take(change: WatchTenantChangesResponse): void {
    const { listener, logger, schema } = this.#options;
    if (change.orgId === '') {
      // A lower standing than ours means that the log itself was set back, by a restore.
      const complete = this.#seq >= 0n && change.seq === this.#seq;
      if (!complete && this.#seq >= 0n) {
        logger.error({ schema, expected: String(this.#seq), seq: String(change.seq) }, 'the tenant change log jumped');
      }
      this.#seq = change.seq;
      listener.onStanding(change.seq, complete);
      this.#caughtUp = true;
      return;
    }
    const gap = change.seq !== this.#seq + 1n;
    if (gap) {
      logger.error({ schema, after: String(this.#seq), seq: String(change.seq) }, 'the tenant change log has a gap');
    }
    this.#seq = change.seq;
    listener.onChange(change);
    listener.onStanding(change.seq, !gap);
  }
}
