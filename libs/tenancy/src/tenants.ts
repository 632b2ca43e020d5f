import type { Transport } from '@connectrpc/connect';
import type { EntitySchema, Tx } from '@mad/postgres';
import type { Logger, Metrics } from '@mad/process';
import type { BreakerOptions } from './circuit-breaker.ts';
import type { ServerStatus } from './tenant-server.ts';

/** An organization's database inside a callback. Gone when the callback returns. */
export interface TenantTx extends Tx {
  readonly orgId: string;
  /** The route's generation the callback began under; part of every fenced write. */
  readonly generation: bigint;
}

export interface TenantCallOptions {
  /** Aborting cancels the running statement on the server and gives the connection up. */
  signal?: AbortSignal;
  /** How long to wait for a connection at most, in milliseconds. Default 5 s. */
  deadlineMs?: number;
}

/** The organizations' databases of one tenant schema. */
export interface Tenants {
  /**
   * Runs `fn` on a connection that refuses writes. Statements do not share a snapshot: for that, read in `transact`.
   * Throws a ConnectError with reason TENANT_NOT_PROVISIONED, TENANT_SUSPENDED, PROVISIONING_FAILED,
   * DATABASE_UNAVAILABLE, CONNECTION_BUDGET_EXHAUSTED or TENANT_MOVED; whatever `fn` throws goes through.
   * A call inside another callback throws: one connection per request is what keeps a full house from deadlock.
   */
  read<T>(orgId: string, fn: (tx: TenantTx) => Promise<T>, options?: TenantCallOptions): Promise<T>;
  /**
   * Runs `fn` in one transaction: commits when it returns, rolls back when it throws. Fails as `read` does; with
   * TENANT_MOVED or TENANT_SUSPENDED when the tenant's generation changed before the commit.
   */
  transact<T>(orgId: string, fn: (tx: TenantTx) => Promise<T>, options?: TenantCallOptions): Promise<T>;
  /**
   * Opens the tenant with one connection ahead of its first use, where a quarter of its server's budget stays free and
   * nobody waits. Answers whether a connection is open then. Fails as `read` does.
   */
  prewarm(orgId: string, options?: TenantCallOptions): Promise<boolean>;
  /** Counts for health and metrics. */
  status(): TenantsStatus;
  /** Waits for the running callbacks, then closes all connections. */
  close(): Promise<void>;
}

export interface TenantsStatus {
  /** Organizations whose database is open. */
  tenants: number;
  /** Routes known. */
  routes: number;
  /** Whether the change log is being heard. */
  live: boolean;
  /** Calls that run or wait. */
  inFlight: number;
  /** By `host:port`. */
  servers: ({ server: string } & ServerStatus)[];
}

export interface TenantsOptions {
  /** The tenant schema, e.g. `results`: also the Postgres schema inside every database. */
  schema: string;
  entities: readonly EntitySchema[];
  /**
   * Migrations that a tenant may be at the latest of and is still not served: those before the oldest version this code works with. While
   * a release goes through the fleet its code meets tenants at the version before it and at its own; a version it does not
   * know is of a later release, which adds to what is there.
   */
  outdated?: readonly string[];
  /** To the provisioner, with this service's token. */
  routes: Transport;
  /** This process's name, shown in pg_stat_activity before the organization. */
  node: string;
  /** Where it listens, `host:port`: whoever listened there before is gone, with the connections it had a share of. */
  place?: string | undefined;
  /** Connections per tenant at most. Default 10. */
  poolMax?: number;
  /** Calls of one tenant at most, running and waiting; more are refused at once. Default 256. */
  maxInFlight?: number;
  /**
   * Calls at once on one server while several organizations are active, shared fairly; who has none at all never waits.
   * Default one for each core of this machine and one more: good for a server as large and as near as this machine.
   */
  turns?: number;
  /** Tenants kept open at most, at 75 to 90 kB each. Default 1,000. */
  maxOpen?: number;
  /** An idle connection is closed after this. Default 5 min. */
  idleMs?: number;
  /** A statement is cancelled after this. Default 60 s. */
  statementTimeoutMs?: number;
  /**
   * Connections to each server at most, of this process alone and without asking the provisioner for a share of the server's
   * budget; a server's capacity less its reserve holds all the same.
   */
  budget?: number;
  /** An idle connection is checked before use after this. Default 30 s. */
  checkAfterMs?: number;
  /** The change log counts as dead after this silence. Default 5 s: its heartbeat comes every 2 s. */
  silenceMs?: number;
  /** A server is asked for a sign of life this often, over an idle connection if there is one. Default 10 s. */
  probeMs?: number;
  /** See BudgetOptions. */
  patienceMs?: number;
  breaker?: BreakerOptions;
  logger: Logger;
  metrics?: Metrics;
}
