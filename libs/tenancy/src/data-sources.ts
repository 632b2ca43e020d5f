import { applicationName, clientOptions, openDataSource } from '@mad/postgres';
import type { EntitySchema } from '@mad/postgres';
import type { Logger } from '@mad/process';
import type { Route } from '@mad/proto/provisioner';
import type pg from 'pg';
import type { DataSource } from 'typeorm';
import { BudgetedPool } from './budgeted-pool.ts';
import type { Holding, Share } from './connection-shares.ts';
import type { BreakerOptions } from './circuit-breaker.ts';
import { TenantServer, type ServerStatus } from './tenant-server.ts';

export interface DataSourcesOptions {
  schema: string;
  entities: readonly EntitySchema[];
  /** The service in `application_name`. */
  node: string;
  /** Tenants kept open at most; more are open only while they are in use. */
  maxOpen: number;
  /** Connections per tenant at most. */
  poolMax: number;
  /** An idle connection is closed after this, in milliseconds. */
  idleMs: number;
  /** An idle connection is checked before use after this, in milliseconds. */
  checkAfterMs: number;
  /** How often a server is asked for a sign of life, in milliseconds. */
  probeMs: number;
  /** How long an open waits for a connection, in milliseconds. */
  openWaitMs: number;
  connectTimeoutMs: number;
  statementTimeoutMs: number;
  /** Instead of leased shares: a limit for each server, of this process alone. */
  budget?: number;
  /** What was leased to this process of a server. */
  share: (serverId: string) => Share | undefined;
  /** A server was met for the first time. */
  onServer: (serverId: string) => void;
  /** Calls at once on a server while several organizations are active. */
  turns: number;
  /** See BudgetOptions. */
  patienceMs?: number;
  breaker?: BreakerOptions;
  logger: Logger;
}

/** Beyond this part of a server's budget no connection is opened ahead of its use. */
const WARM_SHARE = 0.75;

/** An open tenant, for as long as it is leased. */
export interface OpenTenant {
  readonly route: Route;
  readonly dataSource: DataSource;
  readonly pool: BudgetedPool;
  readonly server: TenantServer;
  leases: number;
  /** Closes when the last lease is returned. */
  retired: boolean;
  readonly closed: PromiseWithResolvers<void>;
}

/** The route is older than the one the tenant is open for. */
export class RouteOutdated extends Error {
  override readonly name = 'RouteOutdated';
}

/**
 * The open tenants: least recently used ones give way, and one whose route changed is replaced. Either way it closes
 * only when the last callback that uses it has returned.
 */
export class DataSources {
  readonly #options: DataSourcesOptions;
  /** By organization, least recently used first. */
  readonly #open = new Map<string, OpenTenant>();
  readonly #opening = new Map<string, { route: Route; pool: BudgetedPool; tenant: Promise<OpenTenant> }>();
  readonly #closing = new Set<Promise<void>>();
  readonly #servers = new Map<string, TenantServer>();
  readonly #timers: NodeJS.Timeout[];

  constructor(options: DataSourcesOptions) {
    this.#options = options;
    this.#timers = [
      setInterval(() => this.#closeIdle(), Math.max(10, options.idleMs / 4)).unref(),
      setInterval(() => this.#probe(), options.probeMs).unref(),
    ];
  }

  /** Leases the tenant's data source if it is open for this route; the caller calls `release`. */
  leaseOpen(route: Route): OpenTenant | undefined {
    const tenant = this.#open.get(route.orgId);
    if (tenant === undefined || !leadsAlike(tenant.route, route)) return undefined;
    this.#open.delete(route.orgId);
    this.#open.set(route.orgId, tenant);
    tenant.leases += 1;
    return tenant;
  }

  /**
   * As `leaseOpen`, opening it where it is not. Opened once for all who ask meanwhile; a failure is not remembered.
   * Throws RouteOutdated when a newer route is in use already.
   */
  async lease(route: Route): Promise<OpenTenant> {
    for (;;) {
      const tenant = this.leaseOpen(route);
      if (tenant !== undefined) return tenant;
      const newest = this.#open.get(route.orgId) ?? this.#opening.get(route.orgId);
      if (newest !== undefined && isNewer(newest.route, route)) throw new RouteOutdated();
      let opening = this.#opening.get(route.orgId);
      if (opening === undefined || !leadsAlike(opening.route, route)) {
        const pool = this.#pool(route);
        const mine = { route, pool, tenant: this.#start(route, pool) };
        opening = mine;
        this.#opening.set(route.orgId, mine);
        const forget = (): void => {
          if (this.#opening.get(route.orgId) === mine) this.#opening.delete(route.orgId);
        };
        mine.tenant.then(forget, forget);
      }
      const opened = await opening.tenant;
      // It may have been evicted, or replaced, before we came to use it.
      if (leadsAlike(opened.route, route) && !opened.retired) {
        opened.leases += 1;
        return opened;
      }
    }
  }

  /** Whether the tenant is being opened and waits for its server, not for a place. */
  isConnecting(orgId: string): boolean {
    return this.#opening.get(orgId)?.pool.isConnecting ?? false;
  }

  release(tenant: OpenTenant): void {
    tenant.leases -= 1;
    if (tenant.retired && tenant.leases === 0) void this.#close(tenant);
    else if (this.#open.size > this.#options.maxOpen) this.#evict();
  }

  /**
   * Something about the tenant changed: its data source is replaced on next use if it is of an older generation. Within
   * one, the login may be another: what is running goes on, but nothing waits idle under the login before.
   */
  retire(orgId: string, generation: bigint): void {
    const tenant = this.#open.get(orgId);
    if (tenant === undefined) return;
    if (tenant.route.generation < generation) this.#retire(tenant);
    else tenant.pool.closeIdle();
  }

  /** Whether a connection of the tenant is open under this route. */
  isWarm({ orgId, generation }: Route): boolean {
    const tenant = this.#open.get(orgId);
    return tenant?.route.generation === generation && tenant.pool.totalCount > 0;
  }

  /** Whether the tenant can be opened without taking anything from others, now or in a moment. */
  hasRoom(route: Route): boolean {
    const { open, limit, waiting } = this.#serverOf(route).status();
    return waiting === 0 && open < limit * WARM_SHARE && this.#open.size + this.#opening.size < this.#options.maxOpen;
  }

  /** What this process has on each server, to lease shares by. */
  holdings(): Holding[] {
    const byServer = new Map<string, Holding>();
    for (const { serverId, held, wanted } of [...this.#servers.values()].map((server) => server.holding())) {
      const other = byServer.get(serverId) ?? { serverId, held: 0, wanted: 0 };
      // The primary before a failover is another address of the same: one share covers both.
      byServer.set(serverId, { serverId, held: Math.max(other.held, held), wanted: other.wanted + wanted });
    }
    return [...byServer.values()];
  }

  /** The shares are others, or their time is over. */
  onShares(): void {
    for (const server of this.#servers.values()) server.allow(this.#options.share(server.serverId));
  }

  status(): { tenants: number; servers: ({ server: string } & ServerStatus)[] } {
    const servers = [...this.#servers].map(([server, one]) => ({ server, ...one.status() }));
    return { tenants: this.#open.size, servers };
  }

  /** Waits for the callbacks that are running, then closes everything. */
  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    await Promise.allSettled([...this.#opening.values()].map(({ tenant }) => tenant));
    for (const tenant of this.#open.values()) this.#retire(tenant);
    while (this.#closing.size > 0) await Promise.all(this.#closing);
  }

  async #start(route: Route, pool: BudgetedPool): Promise<OpenTenant> {
    const { schema, entities, logger } = this.#options;
    pool.on('error', (error) => logger.warn({ error, org_id: route.orgId }, 'an idle tenant connection was lost'));
    let dataSource: DataSource;
    try {
      // A pool of ours in the place of pg's: `openDataSource` asks no more of it.
      dataSource = await openDataSource(pool as never, { schema, entities });
    } catch (error) {
      await pool.end();
      throw error;
    }
    const closed = Promise.withResolvers<void>();
    const server = this.#serverOf(route);
    const tenant: OpenTenant = { route, dataSource, pool, server, leases: 0, retired: false, closed };
    const before = this.#open.get(route.orgId);
    if (before !== undefined && isNewer(before.route, route)) {
      this.#retire(tenant);
    } else {
      if (before !== undefined) this.#retire(before);
      this.#open.set(route.orgId, tenant);
      this.#evict(tenant);
    }
    return tenant;
  }

  #pool(route: Route): BudgetedPool {
    const { schema, statementTimeoutMs, node, poolMax, openWaitMs, checkAfterMs } = this.#options;
    const url = new URL(`postgres://${route.host.includes(':') ? `[${route.host}]` : route.host}:${route.port}`);
    if (route.sslmode !== '') url.searchParams.set('sslmode', route.sslmode);
    const client: pg.ClientConfig = {
      ...clientOptions(url.href),
      user: route.user,
      password: route.password,
      database: route.database,
      application_name: applicationName(node, route.orgId, undefined),
      connectionTimeoutMillis: this.#options.connectTimeoutMs,
      statement_timeout: statementTimeoutMs,
      idle_in_transaction_session_timeout: statementTimeoutMs,
      keepAlive: true,
      // Reads need no transaction to be refused writes; a transaction says READ WRITE.
      options: `-c search_path=${schema},public -c default_transaction_read_only=on`,
    };
    const server = this.#serverOf(route);
    const connect = (): Promise<pg.PoolClient> => server.connect(client);
    return new BudgetedPool({ budget: server.budget, connect, max: poolMax, waitMs: openWaitMs, checkAfterMs });
  }

  #serverOf({ host, port, serverId }: Route): TenantServer {
    const { budget: limit, turns, patienceMs, breaker } = this.#options;
    const name = `${host}:${port}`;
    let server = this.#servers.get(name);
    if (server === undefined) {
      server = new TenantServer({ serverId, limit, turns, patienceMs, breaker });
      this.#servers.set(name, server);
      server.allow(this.#options.share(serverId));
      this.#options.onServer(serverId);
    }
    return server;
  }

  /** Closes those that nobody uses; the newcomer is about to be, by whoever opened it. */
  #evict(newcomer?: OpenTenant): void {
    for (const tenant of this.#open.values()) {
      if (this.#open.size <= this.#options.maxOpen) return;
      if (tenant.leases === 0 && tenant !== newcomer) this.#retire(tenant);
    }
  }

  #retire(tenant: OpenTenant): void {
    if (this.#open.get(tenant.route.orgId) === tenant) this.#open.delete(tenant.route.orgId);
    tenant.retired = true;
    const { promise } = tenant.closed;
    this.#closing.add(promise);
    void promise.finally(() => this.#closing.delete(promise));
    if (tenant.leases === 0) void this.#close(tenant);
  }

  async #close({ dataSource, route, closed }: OpenTenant): Promise<void> {
    try {
      await dataSource.destroy();
    } catch (error) {
      this.#options.logger.warn({ error, org_id: route.orgId }, 'closing a tenant failed');
    }
    closed.resolve();
  }

  #closeIdle(): void {
    for (const { budget } of this.#servers.values()) budget.closeIdle(this.#options.idleMs);
  }

  #probe(): void {
    for (const server of this.#servers.values()) void server.probe();
  }
}

/** A login may change its password within a generation. */
function leadsAlike(a: Route, b: Route): boolean {
  return a === b || (a.generation === b.generation && a.user === b.user && a.password === b.password);
}

function isNewer(a: Route, b: Route): boolean {
  return (
    a.generation > b.generation || (a.generation === b.generation && a.changeSeq > b.changeSeq && !leadsAlike(a, b))
  );
}
