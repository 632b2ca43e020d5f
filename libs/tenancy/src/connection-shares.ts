import { randomBytes } from 'node:crypto';
import { durationMs } from '@bufbuild/protobuf/wkt';
import { createClient, type Client, type Transport } from '@connectrpc/connect';
import { SECOND_MS, sleep, type Logger } from '@mad/process';
import { RouteService } from '@mad/proto/provisioner';

/** When the provisioner gave no answer, or none that says when to ask again. */
const RENEW_MS = SECOND_MS;
const TIMEOUT_MS = 5 * SECOND_MS;
/** Whoever closes need not wait long: a share runs out by itself. */
const LEAVE_TIMEOUT_MS = SECOND_MS;
/** What `application_name` has for a program (libs/postgres): longer names would be cut, and then be alike. */
const NODE_LENGTH = 17;
/** Of 500 processes two have the same name once in 34,000 installations. */
const SUFFIX_BYTES = 4;

/** What a process may have on a server, and until when. */
export interface Share {
  connections: number;
  /** In the milliseconds of `performance.now()`. */
  until: number;
}

/** What a process has on a server. */
export interface Holding {
  serverId: string;
  held: number;
  wanted: number;
}

/** A name that no other process has, as it begins the names of this one's connections. */
export function nodeName(program: string): string {
  const suffix = `-${randomBytes(SUFFIX_BYTES).toString('hex')}`;
  return program.replaceAll(/[^\w.-]/g, '_').slice(0, NODE_LENGTH - suffix.length) + suffix;
}

export interface ConnectionSharesOptions {
  /** To the provisioner, with this service's token. */
  transport: Transport;
  node: string;
  /** Where it listens; empty where that is not known. */
  place: string;
  /** What this process has now. */
  holdings: () => Holding[];
  /** The shares changed, or were renewed. */
  onShares: () => void;
  logger: Logger;
}

/**
 * This process's shares of the servers' connection budgets, leased from the provisioner and renewed as long as the process
 * lives. All processes' shares of a server together never exceed its budget.
 */
export class ConnectionShares {
  readonly #options: ConnectionSharesOptions;
  readonly #client: Client<typeof RouteService>;
  readonly #shares = new Map<string, Share>();
  readonly #closing = new AbortController();
  readonly #running: Promise<void>;
  #renewing: Promise<number> | undefined;

  constructor(options: ConnectionSharesOptions) {
    this.#options = options;
    this.#client = createClient(RouteService, options.transport);
    this.#running = this.#run();
  }

  /** The share of a server; undefined where nothing is known of it. One whose time is over allows no opening. */
  of(serverId: string): Share | undefined {
    return this.#shares.get(serverId);
  }

  /** Asks now, where a server is not known yet, and not at the next round. */
  lookFor(serverId: string): void {
    if (!this.#shares.has(serverId)) void this.#renew();
  }

  /** Stops renewing and gives the shares back: call it when the last connection is closed. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
    const { logger, node } = this.#options;
    try {
      await this.#client.leaseConnections({ node, leaving: true }, { timeoutMs: LEAVE_TIMEOUT_MS });
    } catch (error) {
      logger.warn({ error }, 'the shares of connections could not be given back');
    }
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) await sleep(await this.#renew(), signal).catch(() => undefined);
  }

  /** One request at a time: an answer must not overtake another. */
  #renew(): Promise<number> {
    this.#renewing ??= this.#ask(this.#closing.signal).finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  /** In how many milliseconds to ask again. */
  async #ask(signal: AbortSignal): Promise<number> {
    const { node, place, holdings, onShares, logger } = this.#options;
    const sentAt = performance.now();
    try {
      const request = { node, place, holdings: holdings() };
      const { shares, validFor, renewIn } = await this.#client.leaseConnections(request, {
        signal,
        timeoutMs: TIMEOUT_MS,
      });
      const until = sentAt + (validFor === undefined ? 0 : durationMs(validFor));
      for (const { serverId, connections } of shares) this.#shares.set(serverId, { connections, until });
      return renewIn === undefined ? RENEW_MS : durationMs(renewIn);
    } catch (error) {
      if (!signal.aborted) logger.warn({ error }, 'the shares of connections could not be renewed');
      return RENEW_MS;
    } finally {
      // Also when nothing came: time may have run out.
      onShares();
    }
  }
}
