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

interface Entry {
  route: Route;
  fetchedAt: number;
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
    if (entry === undefined) return undefined;
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
    let load = this.#loads.get(orgId);
    if (load === undefined) {
      load = this.#load(orgId).finally(() => this.#loads.delete(orgId));
      this.#loads.set(orgId, load);
    }
    return load;
  }

  /** Makes the next `get` ask the provisioner. */
  forget(orgId: string): void {
    this.#entries.delete(orgId);
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
      try {
        ({ route } = await this.#client.getRoute({ orgId, schema }, { timeoutMs: GET_TIMEOUT_MS }));
      } catch (error) {
        return this.#afterFailure(orgId, error);
      }
      if (route === undefined) throw new ConnectError('the provisioner answered without a route', Code.Internal);
      // The answer may have been overtaken by a change that arrived on the stream.
      if ((this.#changes.get(orgId) ?? 0n) > route.changeSeq) continue;
      this.#entries.set(orgId, { route, fetchedAt: performance.now() });
      return route;
    }
  }

  #afterFailure(orgId: string, error: unknown): Route {
    const code = error instanceof ConnectError ? error.code : undefined;
    const unreachable = code === Code.Unavailable || code === Code.DeadlineExceeded;
    const last = this.#entries.peek(orgId);
    if (unreachable && last !== undefined) {
      // For a moment only, and not asked for again by everyone who comes meanwhile.
      last.fetchedAt = performance.now();
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

  /** Routes that are older than the log's standing may have missed a change. */
  #dropBefore(seq: bigint): void {
    for (const [orgId, entry] of this.#entries.entries()) {
      if (entry.route.changeSeq !== seq) this.#entries.delete(orgId);
    }
    // After a set-back of the log its numbers begin anew.
    this.#changes.clear();
  }
}
