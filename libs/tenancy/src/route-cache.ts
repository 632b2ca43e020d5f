import { Code, ConnectError, createClient, type Client, type Transport } from '@connectrpc/connect';
import { SECOND_MS, type Logger } from '@mad/process';
import { RouteService, type Route, type WatchTenantChangesResponse } from '@mad/proto/provisioner';
import { reasonOf } from '@mad/rpc';
import { LRUCache } from 'lru-cache';
import { ChangeWatch } from './change-watch.ts';
import { unavailable } from './tenant-errors.ts';

/** Routes at most: one is about 1 kB. */
const MAX_ROUTES = 10_000;
/** While the change log is silent, older routes are asked for again. */
const BLIND_MS = SECOND_MS;
const GET_TIMEOUT_MS = 5 * SECOND_MS;
/** With a route known that may still do, nobody is kept waiting for long. */
const REFRESH_TIMEOUT_MS = SECOND_MS;

interface Entry {
  route: Route;
  fetchedAt: number;
  /** It did not work: not used before it was asked for again, unless nobody answers. */
  suspect: boolean;
}

export interface RouteCacheOptions {
  /** To the provisioner, with this service's token. */
  transport: Transport;
  schema: string;
  /** The change log counts as dead after this silence, in milliseconds. */
  silenceMs: number;
  /** A tenant changed; its route has this generation now. */
  onChange: (orgId: string, generation: bigint) => void;
  logger: Logger;
}

/** Where the tenants are, kept as long as the change log says that nothing changed. */
export class RouteCache {
  readonly #client: Client<typeof RouteService>;
  readonly #options: RouteCacheOptions;
  readonly #entries = new LRUCache<string, Entry>({ max: MAX_ROUTES });
  readonly #loads = new Map<string, Promise<Route>>();
  /** The number of each organization's last change: an answer that does not reflect it is old. */
  readonly #changes = new LRUCache<string, bigint>({ max: MAX_ROUTES });
  readonly #watch: ChangeWatch;
  /** Where the log stood when changes before it may have been missed; another object each time. */
  #standing = { seq: 0n };
  /** The provisioner was out of reach: until then nobody waits for it again who knows a route. */
  #awayUntil = Number.NEGATIVE_INFINITY;

  constructor(options: RouteCacheOptions) {
    this.#options = options;
    this.#client = createClient(RouteService, options.transport);
    this.#watch = new ChangeWatch({
      client: this.#client,
      schema: options.schema,
      silenceMs: options.silenceMs,
      logger: options.logger,
      listener: {
        onChange: (change) => this.#onChange(change),
        onStanding: (seq, complete) => {
          if (!complete) this.#dropBefore(seq);
        },
      },
    });
  }

  /** The route, when it is known to be current. */
  peek(orgId: string): Route | undefined {
    const entry = this.#entries.get(orgId);
    if (entry === undefined || entry.suspect) return undefined;
    return this.#watch.isLive() || performance.now() - entry.fetchedAt <= BLIND_MS ? entry.route : undefined;
  }

  /**
   * The route, asked for where it is not known to be current. Throws the provisioner's refusal
   * (TENANT_NOT_PROVISIONED). With the provisioner out of reach the last known route is used: a tenant's database
   * enforces its state itself.
   */
  async get(orgId: string): Promise<Route> {
    const known = this.peek(orgId);
    if (known !== undefined) return known;
    const last = this.#entries.peek(orgId);
    if (last !== undefined && !last.suspect && performance.now() < this.#awayUntil) return last.route;
    const running = this.#loads.get(orgId);
    if (running !== undefined) return running;
    const load = this.#load(orgId).finally(() => {
      if (this.#loads.get(orgId) === load) this.#loads.delete(orgId);
    });
    this.#loads.set(orgId, load);
    return load;
  }

  /** The route did not work: the next `get` asks the provisioner, and not by a question that was put before. */
  forget(orgId: string): void {
    const entry = this.#entries.peek(orgId);
    if (entry !== undefined) entry.suspect = true;
    this.#loads.delete(orgId);
  }

  status(): { routes: number; live: boolean } {
    return { routes: this.#entries.size, live: this.#watch.isLive() };
  }

  close(): Promise<void> {
    return this.#watch.close();
  }

  async #load(orgId: string): Promise<Route> {
    const { schema } = this.#options;
    for (;;) {
      let route: Route | undefined;
      const standing = this.#standing;
      const timeoutMs = this.#entries.peek(orgId) === undefined ? GET_TIMEOUT_MS : REFRESH_TIMEOUT_MS;
      try {
        ({ route } = await this.#client.getRoute({ orgId, schema }, { timeoutMs }));
      } catch (error) {
        return this.#afterFailure(orgId, error);
      }
      if (route === undefined) throw new ConnectError('the provisioner answered without a route', Code.Internal);
      // The answer may have been overtaken by a change that was missed while it was under way,
      if (this.#standing !== standing && route.changeSeq !== this.#standing.seq) continue;
      // or by one that arrived on the stream.
      if ((this.#changes.get(orgId) ?? 0n) > route.changeSeq) continue;
      this.#entries.set(orgId, { route, fetchedAt: performance.now(), suspect: false });
      return route;
    }
  }

  #afterFailure(orgId: string, error: unknown): Route {
    const code = error instanceof ConnectError ? error.code : undefined;
    const unreachable = code === Code.Unavailable || code === Code.DeadlineExceeded;
    const last = this.#entries.peek(orgId);
    if (unreachable && last !== undefined) {
      // For a moment only, and not asked for again by everyone who comes meanwhile.
      this.#awayUntil = performance.now() + BLIND_MS;
      last.suspect = false;
      return last.route;
    }
    this.#entries.delete(orgId);
    if (unreachable && reasonOf(error) === undefined) {
      throw unavailable({ org_id: orgId, schema: this.#options.schema }, error);
    }
    throw error;
  }

  #onChange({ orgId, seq, generation }: WatchTenantChangesResponse): void {
    this.#changes.set(orgId, seq);
    const entry = this.#entries.peek(orgId);
    if (entry !== undefined && entry.route.changeSeq < seq) this.#entries.delete(orgId);
    this.#options.onChange(orgId, generation);
  }

  /** Routes that are older than the log's standing may have missed a change, and so may those that are being asked for. */
  #dropBefore(seq: bigint): void {
    this.#standing = { seq };
    for (const [orgId, entry] of this.#entries.entries()) {
      if (entry.route.changeSeq !== seq) this.#entries.delete(orgId);
    }
    // After a set-back of the log its numbers begin anew.
    this.#changes.clear();
  }
}
