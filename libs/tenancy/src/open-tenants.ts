import { AsyncLocalStorage } from 'node:async_hooks';
import { availableParallelism } from 'node:os';
import { applicationName, cancelStatement, createTx, mustReconnect } from '@mad/postgres';
import { currentSpan, MINUTE_MS, SECOND_MS, spanned } from '@mad/process';
import type { Route } from '@mad/proto/provisioner';
import type pg from 'pg';
import { BudgetExhausted, PoolEnded, ServerUnavailable } from './budget-errors.ts';
import type { Slot } from './budget-slot.ts';
import { ConnectionShares, nodeName } from './connection-shares.ts';
import { DataSources, RouteOutdated, type OpenTenant } from './data-sources.ts';
import { ConnectTimedOut, failureOf, type Failure } from './failure.ts';
import { RouteCache } from './route-cache.ts';
import {
  crowded,
  exhausted,
  failed,
  moved,
  outdated as tooOld,
  refusalOf,
  unavailable,
  type Intent,
} from './tenant-errors.ts';
import { registerTenantMetrics, waitHistogram } from './tenant-metrics.ts';
import type { Turn } from './turns.ts';
import type { TenantCallOptions, Tenants, TenantsOptions, TenantsStatus, TenantTx } from './tenants.ts';

/** Besides one for each core, so that none of them waits for what is on its way. */
const TURNS_ON_THEIR_WAY = 1;
const DEFAULT_DEADLINE_MS = 5 * SECOND_MS;
/** Less than the deadline: whoever waits hears of the server, not of the time that ran out. */
const CONNECT_TIMEOUT_MS = 3 * SECOND_MS;

/** Opens the way to the tenants. No tenant is connected to before it is used. */
export function openTenants(options: TenantsOptions): Promise<Tenants> {
  const tenants = new RoutedTenants(options);
  if (options.metrics !== undefined) registerTenantMetrics(options.metrics, () => tenants.status());
  return Promise.resolve(tenants);
}

class RoutedTenants implements Tenants {
  readonly #schema: string;
  readonly #node: string;
  readonly #waited: ((seconds: number) => void) | undefined;
  readonly #routes: RouteCache;
  readonly #sources: DataSources;
  readonly #shares: ConnectionShares | undefined;
  readonly #inside = new AsyncLocalStorage<string>();
  readonly #maxInFlight: number;
  readonly #outdated: ReadonlySet<string>;
  /** Calls that run or wait, by organization. */
  readonly #inFlight = new Map<string, number>();

  constructor(options: TenantsOptions) {
    const { schema, logger } = options;
    this.#schema = schema;
    this.#node = options.budget === undefined ? nodeName(options.node) : options.node;
    this.#waited = options.metrics && waitHistogram(options.metrics);
    this.#maxInFlight = options.maxInFlight ?? 256;
    this.#outdated = new Set(options.outdated);
    this.#sources = new DataSources({
      schema,
      entities: options.entities,
      node: this.#node,
      maxOpen: options.maxOpen ?? 1_000,
      poolMax: options.poolMax ?? 10,
      idleMs: options.idleMs ?? 5 * MINUTE_MS,
      checkAfterMs: options.checkAfterMs ?? 30 * SECOND_MS,
      probeMs: options.probeMs ?? 10 * SECOND_MS,
      openWaitMs: DEFAULT_DEADLINE_MS,
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      statementTimeoutMs: options.statementTimeoutMs ?? MINUTE_MS,
      budget: options.budget,
      share: (serverId) => this.#shares?.of(serverId),
      onServer: (serverId) => this.#shares?.lookFor(serverId),
      turns: options.turns ?? availableParallelism() + TURNS_ON_THEIR_WAY,
      patienceMs: options.patienceMs,
      breaker: options.breaker,
      logger,
    });
    if (options.budget === undefined) {
      this.#shares = new ConnectionShares({
        transport: options.routes,
        node: this.#node,
        place: options.place ?? '',
        holdings: () => this.#sources.holdings(),
        onShares: () => this.#sources.onShares(),
        logger,
      });
    }
    this.#routes = new RouteCache({
      transport: options.routes,
      schema,
      silenceMs: options.silenceMs ?? 5 * SECOND_MS,
      onChange: (orgId, generation) => this.#sources.retire(orgId, generation),
      logger,
    });
  }

  read<T>(orgId: string, fn: (tx: TenantTx) => Promise<T>, options: TenantCallOptions = {}): Promise<T> {
    return spanned('tenants.read', 'internal', { org_id: orgId }, () => this.#call(orgId, 'read', fn, options));
  }

  transact<T>(orgId: string, fn: (tx: TenantTx) => Promise<T>, options: TenantCallOptions = {}): Promise<T> {
    return spanned('tenants.transact', 'internal', { org_id: orgId }, () => this.#call(orgId, 'transact', fn, options));
  }

  async prewarm(orgId: string, { signal, deadlineMs = DEFAULT_DEADLINE_MS }: TenantCallOptions = {}): Promise<boolean> {
    const until = performance.now() + deadlineMs;
    const route = this.#routes.peek(orgId) ?? (await this.#routes.get(orgId));
    if (refusalOf(route, 'read') !== undefined) return false;
    if (this.#sources.isWarm(route)) return true;
    if (!this.#sources.hasRoom(route)) return false;
    const { tenant, slot, turn } = await this.#acquire(orgId, 'read', until, signal);
    tenant.pool.giveBack(slot, false);
    turn.end();
    this.#sources.release(tenant);
    return true;
  }

  status(): TenantsStatus {
    let inFlight = 0;
    for (const calls of this.#inFlight.values()) inFlight += calls;
    return { ...this.#routes.status(), ...this.#sources.status(), inFlight };
  }

  async close(): Promise<void> {
    await this.#routes.close();
    await this.#sources.close();
    await this.#shares?.close();
  }

  async #call<T>(
    orgId: string,
    intent: Intent,
    fn: (tx: TenantTx) => Promise<T>,
    options: TenantCallOptions,
  ): Promise<T> {
    const outer = this.#inside.getStore();
    if (outer !== undefined) {
      throw new Error(`tenants.${intent} inside a callback for organization ${outer}: it would hold two connections`);
    }
    options.signal?.throwIfAborted();
    const calls = this.#inFlight.get(orgId) ?? 0;
    if (calls >= this.#maxInFlight) throw crowded(this.#about(orgId), this.#maxInFlight);
    this.#inFlight.set(orgId, calls + 1);
    try {
      const began = performance.now();
      const until = began + (options.deadlineMs ?? DEFAULT_DEADLINE_MS);
      const { tenant, slot, turn } = await this.#acquire(orgId, intent, until, options.signal).finally(() =>
        this.#waited?.((performance.now() - began) / SECOND_MS),
      );
      try {
        return await this.#inside.run(orgId, () => this.#run(tenant, slot, intent, fn, options.signal));
      } finally {
        turn.end();
        this.#sources.release(tenant);
      }
    } finally {
      const left = this.#inFlight.get(orgId)! - 1;
      if (left === 0) this.#inFlight.delete(orgId);
      else this.#inFlight.set(orgId, left);
    }
  }

  /**
   * A turn and a connection under the newest route, its transaction begun. One repeat, where the route may have changed while we were
   * on the way or a connection turned out to be lost: nothing was done on it yet.
   */
  async #acquire(
    orgId: string,
    intent: Intent,
    until: number,
    signal: AbortSignal | undefined,
  ): Promise<{ tenant: OpenTenant; slot: Slot; turn: Turn }> {
    for (let attempt = 1; ; attempt += 1) {
      const route = this.#routes.peek(orgId) ?? (await this.#routes.get(orgId));
      signal?.throwIfAborted();
      const refusal = refusalOf(route, intent);
      if (refusal !== undefined) throw refusal;
      if (this.#outdated.has(route.schemaVersion)) throw tooOld(this.#about(orgId), route.schemaVersion);
      let tenant: OpenTenant | undefined;
      let slot: Slot | undefined;
      let turn: Turn | undefined;
      try {
        tenant = this.#sources.leaseOpen(route) ?? (await this.#open(route, until, signal));
        turn = await tenant.server.turns.take(orgId, { timeoutMs: Math.max(1, until - performance.now()), signal });
        const { pool } = tenant;
        const take = (): Promise<Slot> => pool.take({ timeoutMs: Math.max(1, until - performance.now()), signal });
        slot = await (pool.idleCount > 0 ? take() : turn.aside(take));
        if (intent === 'transact') await this.#begin(slot.client, orgId, signal);
        return { tenant, slot, turn };
      } catch (error) {
        turn?.end();
        const failure = failureOf(error, slot === undefined ? 'connect' : intent);
        if (slot !== undefined) tenant?.pool.giveBack(slot, true);
        if (failure?.connection === 'close_idle') tenant?.pool.closeIdle();
        if (tenant !== undefined) this.#sources.release(tenant);
        if (signal?.aborted) throw signal.reason;
        if (error instanceof BudgetExhausted) throw exhausted(this.#about(orgId), error);
        if (error instanceof ServerUnavailable) throw unavailable(this.#about(orgId), error, error.retryAfterMs);
        const outdated = error instanceof PoolEnded || error instanceof RouteOutdated;
        if (outdated || (failure !== undefined && failure.route !== 'keep')) this.#routes.forget(orgId);
        const lost = slot !== undefined && failure !== undefined;
        if (attempt === 1 && (outdated || lost || failure?.route === 'repeat')) continue;
        if (failure !== undefined) throw failed(failure, this.#about(orgId), error);
        throw outdated ? unavailable(this.#about(orgId), error) : error;
      }
    }
  }

  /** The trace goes with BEGIN, in one message: it costs no round trip. */
  async #begin(client: pg.PoolClient, orgId: string, signal: AbortSignal | undefined): Promise<void> {
    const span = currentSpan();
    const named =
      span === undefined ? '' : `; SET LOCAL application_name = '${applicationName(this.#node, orgId, span)}'`;
    const onAbort = (): void => cancelStatement(client);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await client.query(`BEGIN READ WRITE${named}`);
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Opens the tenant, but waits no longer than the caller may. */
  async #open(route: Route, until: number, signal: AbortSignal | undefined): Promise<OpenTenant> {
    const lease = this.#sources.lease(route);
    const limit = Promise.withResolvers<never>();
    const waitMs = Math.max(1, until - performance.now());
    const onDeadline = (): void => {
      const connecting = this.#sources.isConnecting(route.orgId);
      limit.reject(connecting ? new ConnectTimedOut(waitMs) : new BudgetExhausted(waitMs));
    };
    const timer = setTimeout(onDeadline, waitMs);
    const onAbort = (): void => limit.reject(signal!.reason as Error);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      return await Promise.race([lease, limit.promise]);
    } catch (error) {
      // The open goes on for others; its lease must not stay with us.
      void lease.then(
        (tenant) => this.#sources.release(tenant),
        () => undefined,
      );
      throw error;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  async #run<T>(
    tenant: OpenTenant,
    slot: Slot,
    intent: Intent,
    fn: (tx: TenantTx) => Promise<T>,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    const { client } = slot;
    const { orgId, generation } = tenant.route;
    let broken = false;
    const onAbort = (): void => {
      broken = true;
      cancelStatement(client);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      // It may have given up on the way here, before anything listened.
      signal?.throwIfAborted();
      const tx = createTx(client, { dataSource: tenant.dataSource, prepare: true });
      const result = await fn(Object.assign(tx, { orgId, generation }));
      if (intent === 'transact') {
        signal?.throwIfAborted();
        await this.#confirm(tenant.route);
        const { command } = await client.query('COMMIT');
        // Postgres answers COMMIT of a failed transaction with a rollback and no error.
        if (command === 'ROLLBACK') throw new Error('a failed statement was ignored: the transaction was rolled back');
      }
      return result;
    } catch (error) {
      const failure = failureOf(error, intent);
      const lost = slot.dead || failure !== undefined || mustReconnect(error);
      broken ||= lost;
      if (failure?.connection === 'close_idle') tenant.pool.closeIdle();
      if (intent === 'transact' && !broken) {
        await client.query('ROLLBACK').catch(() => {
          broken = true;
        });
      }
      if (signal?.aborted) throw signal.reason;
      if (lost) throw await this.#explain(tenant.route, intent, error, failure);
      throw error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
      tenant.pool.giveBack(slot, broken);
    }
  }

  /** Throws when the tenant is not where, or not what, it was when the callback began. */
  async #confirm({ orgId, generation }: Route): Promise<void> {
    const route = this.#routes.peek(orgId) ?? (await this.#routes.get(orgId));
    if (route.generation === generation) return;
    throw refusalOf(route, 'transact') ?? moved(this.#about(orgId));
  }

  /** Why the connection was lost: the provisioner may have ended it on purpose, before its change reached us. */
  async #explain(
    { orgId, generation }: Route,
    intent: Intent,
    cause: unknown,
    failure: Failure | undefined,
  ): Promise<Error> {
    const told =
      failure === undefined ? unavailable(this.#about(orgId), cause) : failed(failure, this.#about(orgId), cause);
    this.#routes.forget(orgId);
    try {
      const route = await this.#routes.get(orgId);
      if (route.generation === generation) return told;
      return refusalOf(route, intent) ?? moved(this.#about(orgId), cause);
    } catch {
      return told;
    }
  }

  #about(orgId: string): Record<string, string> {
    return { org_id: orgId, schema: this.#schema };
  }
}
