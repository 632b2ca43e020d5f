import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { clientOptions } from '@mad/postgres';
import { createLogger, uuidv7 } from '@mad/process';
import { RouteSchema, RouteService, TenantState, type Route } from '@mad/proto/provisioner';
import { bind, grpcTransport, reasonOf, rpcError, serveRpc, type GrpcTransport, type RpcServer } from '@mad/rpc';
import { testCluster } from '@mad/testing';
import pg from 'pg';
import { openTenants, type Tenants, type TenantsOptions } from '../src/index.ts';

export const silent = createLogger('test', { level: 'silent' });

/** A change as the fleet's log keeps it. */
interface Logged {
  seq: bigint;
  orgId: string;
  generation: bigint;
  state: TenantState;
}

/** What a test may change of a route. */
type RouteChange = Partial<Pick<Route, 'state' | 'host' | 'port' | 'database' | 'user' | 'password'>>;

/** Real databases with a real login each, and the provisioner's side of routing, whose log a test may cut and mute. */
export interface Fleet {
  orgs: string[];
  /** A tenant no other test of the file has touched. */
  untouched(): string;
  transport: GrpcTransport;
  /** The provisioner's gRPC. */
  port: number;
  admin: pg.Client;
  /** Asked for routes so often. */
  asked: number;
  /** True while streams say nothing at all. */
  mute: boolean;
  /** Routes that were looked up are told when it resolves. */
  held: Promise<void> | undefined;
  /** How long a share of connections is good for, in milliseconds. */
  shareMs: number;
  /** True while the provisioner cannot be reached. */
  away: boolean;
  /** As it is at first: nothing away, mute or short. */
  heal(): void;
  open(options?: Partial<TenantsOptions>): Promise<Tenants>;
  route(orgId: string): Route;
  /** Changes a tenant and tells the streams. */
  change(orgId: string, change: RouteChange): void;
  /** Ends all streams. */
  cut(): void;
  /** Ends the tenant's sessions and, for a fence, its right to connect. */
  fence(orgId: string): Promise<void>;
  /** Open connections of the fleet's logins. */
  backends(): Promise<number>;
  close(): Promise<void>;
}

export const SCHEMA = 'notes';
const HEARTBEAT_MS = 50;
const BUDGET = 20;
const HEALTHY = { mute: false, away: false, held: undefined, shareMs: 60_000 };

/** `adminUrl` is the superuser's on another server than the run's. */
export async function openFleet(size: number, adminUrl = testCluster().adminUrl): Promise<Fleet> {
  const { hostname: host, port: portText, searchParams } = new URL(adminUrl);
  const port = Number(portText);
  const urlTo = (database: string): string => Object.assign(new URL(adminUrl), { pathname: `/${database}` }).href;
  const admin = new pg.Client(clientOptions(adminUrl));
  // A test may stop the server.
  admin.on('error', () => undefined);
  await admin.connect();
  const prefix = `mad_fleet_${randomBytes(4).toString('hex')}`;
  const password = randomBytes(16).toString('hex');
  const serverId = uuidv7();
  const routes = new Map<string, Route>();
  const log: Logged[] = [];
  const streams = new Set<{ wake: () => void; cut: boolean }>();

  const names = Array.from({ length: size }, (_, n) => `${prefix}_${n}`);
  await admin.query(`CREATE DATABASE ${prefix}`);
  const template = new pg.Client(clientOptions(urlTo(prefix)));
  await template.connect();
  await template.query(`CREATE SCHEMA ${SCHEMA};
    CREATE TABLE ${SCHEMA}.notes (note_id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text NOT NULL);
    GRANT USAGE ON SCHEMA ${SCHEMA} TO PUBLIC; GRANT ALL ON ${SCHEMA}.notes TO PUBLIC`);
  await template.end();
  for (const name of names) {
    await admin.query(`CREATE ROLE ${name} LOGIN PASSWORD '${password}'`);
    await admin.query(`CREATE DATABASE ${name} TEMPLATE ${prefix} STRATEGY WAL_LOG`);
    await admin.query(`REVOKE ALL ON DATABASE ${name} FROM PUBLIC`);
    await admin.query(`GRANT CONNECT ON DATABASE ${name} TO ${name}`);
    const orgId = uuidv7();
    const sslmode = searchParams.get('sslmode') ?? '';
    const place = { serverId, host, port, sslmode, database: name, user: name, password, connectionBudget: BUDGET };
    routes.set(
      orgId,
      create(RouteSchema, { orgId, schema: SCHEMA, state: TenantState.READY, generation: 1n, ...place }),
    );
  }

  const fleet = { asked: 0, ...HEALTHY } as Fleet;
  const newest = (): bigint => log.at(-1)?.seq ?? 0n;

  async function* watch(afterSeq: bigint, signal: AbortSignal): AsyncGenerator<Partial<Logged>> {
    const stream = { wake: (): void => undefined, cut: false };
    streams.add(stream);
    let seq = afterSeq < 0n ? newest() : afterSeq;
    try {
      while (!signal.aborted) {
        if (stream.cut) throw new ConnectError('cut', Code.Unavailable);
        if (!fleet.mute) {
          for (const change of log.filter((each) => each.seq > seq)) {
            seq = change.seq;
            yield change;
          }
          yield { seq };
        }
        await new Promise<void>((resolve) => {
          stream.wake = resolve;
          signal.addEventListener('abort', () => resolve(), { once: true });
          setTimeout(resolve, HEARTBEAT_MS);
        });
      }
    } finally {
      streams.delete(stream);
    }
  }

  const server: RpcServer = await serveRpc({
    service: 'provisioner',
    host: '127.0.0.1',
    port: 0,
    services: [
      bind(RouteService, {
        async getRoute({ orgId }) {
          fleet.asked += 1;
          if (fleet.away) throw new ConnectError('away', Code.Unavailable);
          const route = routes.get(orgId);
          if (route === undefined) throw rpcError(Code.FailedPrecondition, 'TENANT_NOT_PROVISIONED', 'no database');
          const usable = [TenantState.READY, TenantState.READ_ONLY, TenantState.MOVING].includes(route.state);
          const hidden = usable ? {} : { password: '', user: '', host: '' };
          const answer = { route: { ...route, changeSeq: newest(), ...hidden } };
          await fleet.held;
          return answer;
        },
        watchTenantChanges: ({ afterSeq }, ctx) => watch(afterSeq, ctx.signal),
        // One process alone has the whole budget.
        leaseConnections() {
          if (fleet.away) throw new ConnectError('away', Code.Unavailable);
          return {
            shares: [{ serverId, connections: BUDGET, generation: 1n }],
            validFor: durationFromMs(fleet.shareMs),
          };
        },
      }),
    ],
    interceptors: [],
    logger: silent,
    drainMs: 0,
  });
  const transport = grpcTransport(`127.0.0.1:${server.port}`);
  const opened: Tenants[] = [];
  let touched = 0;

  return Object.assign(fleet, {
    orgs: [...routes.keys()],
    untouched() {
      const orgId = [...routes.keys()][touched];
      touched += 1;
      if (orgId === undefined) throw new Error('the fleet is too small');
      return orgId;
    },
    heal: () => void Object.assign(fleet, HEALTHY),
    transport,
    port: server.port,
    admin,
    async open(options: Partial<TenantsOptions> = {}) {
      const tenants = await openTenants({
        schema: SCHEMA,
        entities: [],
        routes: transport,
        node: 'notes',
        logger: silent,
        ...options,
      });
      opened.push(tenants);
      return tenants;
    },
    route: (orgId: string) => routes.get(orgId)!,
    change(orgId: string, change: RouteChange) {
      const route = routes.get(orgId)!;
      Object.assign(route, change, { generation: route.generation + 1n });
      log.push({ seq: newest() + 1n, orgId, generation: route.generation, state: route.state });
      for (const { wake } of streams) wake();
    },
    cut() {
      for (const stream of streams) {
        stream.cut = true;
        stream.wake();
      }
    },
    async fence(orgId: string) {
      const { database } = routes.get(orgId)!;
      await admin.query(`REVOKE CONNECT ON DATABASE ${database} FROM ${database}`);
      await admin.query('SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1', [database]);
    },
    async backends() {
      const { rows } = await admin.query<{ n: number }>(
        'SELECT count(*)::int AS n FROM pg_stat_activity WHERE starts_with(usename, $1)',
        [prefix],
      );
      return rows[0]!.n;
    },
    async close() {
      await Promise.all(opened.map((tenants) => tenants.close()));
      transport.close();
      await server.close();
      // With its server went the databases.
      if (!(await admin.query('SELECT').then(Boolean, () => false))) return;
      for (const name of [...names, prefix]) await admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
      for (const name of names) await admin.query(`DROP ROLE ${name}`);
      await admin.end();
    },
  });
}

/** Why a call was refused. Fails where it was not. */
export async function failure(
  promise: Promise<unknown>,
): Promise<{ code: Code; reason: string | undefined; error: unknown }> {
  try {
    await promise;
  } catch (error) {
    return { code: (error as { code: Code }).code, reason: reasonOf(error), error };
  }
  throw new Error('it was expected to fail');
}

/** Waits for what is soon to be. */
export async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let wait = 0; wait < 400; wait += 1) {
    if (await condition()) return;
    await delay(10);
  }
  throw new Error(`waited in vain until ${what}`);
}
