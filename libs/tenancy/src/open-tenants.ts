import { AsyncLocalStorage } from 'node:async_hooks';
import { applicationName, cancelStatement, createTx, mustReconnect } from '@mad/postgres';
import { currentSpan, MINUTE_MS, SECOND_MS, spanned } from '@mad/process';
import { TenantState, type Route } from '@mad/proto/provisioner';
import { BudgetExhausted, PoolEnded } from './budget-errors.ts';
import type { Slot } from './budget-slot.ts';
import { DataSources, RouteOutdated, type OpenTenant } from './data-sources.ts';
import { RouteCache } from './route-cache.ts';
import {
  exhausted,
  isConnectionLoss,
  isRouteRefused,
  moved,
  refusalOf,
  unavailable,
  type Intent,
} from './tenant-errors.ts';
import { registerTenantMetrics, waitHistogram } from './tenant-metrics.ts';
import type { TenantCallOptions, Tenants, TenantsOptions, TenantsStatus, TenantTx } from './tenants.ts';

const DEFAULT_DEADLINE_MS = 5 * SECOND_MS;
const CONNECT_TIMEOUT_MS = 5 * SECOND_MS;

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
  readonly #inside = new AsyncLocalStorage<string>();

  constructor(options: TenantsOptions) {
    const { schema, logger } = options;
    this.#schema = schema;
    this.#node = options.node;
    this.#waited = options.metrics && waitHistogram(options.metrics);
    this.#sources = new DataSources({
      schema,
      entities: options.entities,
      applicationName: options.node,
      maxOpen: options.maxOpen ?? 500,
      poolMax: options.poolMax ?? 10,
      idleMs: options.idleMs ?? 5 * MINUTE_MS,
      checkAfterMs: options.checkAfterMs ?? 30 * SECOND_MS,
      openWaitMs: DEFAULT_DEADLINE_MS,
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      statementTimeoutMs: options.statementTimeoutMs ?? MINUTE_MS,
      budget: options.budget,
      patienceMs: options.patienceMs,
      logger,
    });
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
    const { tenant, slot } = await this.#acquire(orgId, 'read', until, signal);
    tenant.pool.giveBack(slot, false);
    this.#sources.release(tenant);
    return true;
  }

  status(): TenantsStatus {
    return { ...this.#routes.status(), ...this.#sources.status() };
  }

  async close(): Promise<void> {
    await this.#routes.close();
    await this.#sources.close();
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
    const began = performance.now();
    const until = began + (options.deadlineMs ?? DEFAULT_DEADLINE_MS);
    const { tenant, slot } = await this.#acquire(orgId, intent, until, options.signal).finally(() =>
      this.#waited?.((performance.now() - began) / SECOND_MS),
    );
    try {
      return await this.#inside.run(orgId, () => this.#run(tenant, slot, intent, fn, options.signal));
    } finally {
      this.#sources.release(tenant);
    }
  }

  /** A connection under the newest route. One repeat: the route may have changed while we were on the way. */
  async #acquire(
    orgId: string,
    intent: Intent,
    until: number,
    signal: AbortSignal | undefined,
  ): Promise<{ tenant: OpenTenant; slot: Slot }> {
    for (let attempt = 1; ; attempt += 1) {
      const route = this.#routes.peek(orgId) ?? (await this.#routes.get(orgId));
      const refusal = refusalOf(route, intent);
      if (refusal !== undefined) throw refusal;
      let tenant: OpenTenant | undefined;
      try {
        tenant = this.#sources.leaseOpen(route) ?? (await this.#open(route, until, signal));
        const slot = await tenant.pool.take({ timeoutMs: Math.max(1, until - performance.now()), signal });
        return { tenant, slot };
      } catch (error) {
        if (tenant !== undefined) this.#sources.release(tenant);
        if (signal?.aborted) throw signal.reason;
        if (error instanceof BudgetExhausted) throw exhausted(this.#about(orgId), error);
        const outdated = error instanceof PoolEnded || error instanceof RouteOutdated || isRouteRefused(error);
        if (outdated || isConnectionLoss(error)) {
          this.#routes.forget(orgId);
          if (outdated && attempt === 1) continue;
          throw unavailable(this.#about(orgId), error);
        }
        throw error;
      }
    }
  }

  /** Opens the tenant, but waits no longer than the caller may. */
  async #open(route: Route, until: number, signal: AbortSignal | undefined): Promise<OpenTenant> {
    const lease = this.#sources.lease(route);
    const limit = Promise.withResolvers<never>();
    const waitMs = Math.max(1, until - performance.now());
    const timer = setTimeout(() => limit.reject(new BudgetExhausted(waitMs)), waitMs);
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
      if (intent === 'transact') {
        const name = applicationName(this.#node, orgId, currentSpan()).replaceAll("'", "''");
        await client.query(`BEGIN READ WRITE; SET LOCAL application_name = '${name}'`);
      }
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
      const lost = slot.dead || (error instanceof Error && (isConnectionLoss(error) || mustReconnect(error)));
      broken ||= lost;
      if (intent === 'transact' && !broken) {
        await client.query('ROLLBACK').catch(() => {
          broken = true;
        });
      }
      if (signal?.aborted) throw signal.reason;
      if (lost) throw await this.#explain(tenant.route, error);
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
  async #explain({ orgId, generation }: Route, cause: unknown): Promise<Error> {
    this.#routes.forget(orgId);
    try {
      const route = await this.#routes.get(orgId);
      if (route.generation === generation) return unavailable(this.#about(orgId), cause);
      if (route.state !== TenantState.READY) return refusalOf(route, 'transact') ?? moved(this.#about(orgId), cause);
      return moved(this.#about(orgId), cause);
    } catch {
      return unavailable(this.#about(orgId), cause);
    }
  }

  #about(orgId: string): Record<string, string> {
    return { org_id: orgId, schema: this.#schema };
  }
}
