import { SECOND_MS } from '@mad/process';
import type { Route } from '@mad/proto/provisioner';
import pg from 'pg';
import { DataSource } from 'typeorm';
import { backendLines, BUDGET, watchBackends } from '../backends.ts';
import { interleave, type Sampler } from '../measure.ts';
import { startProgram } from '../child.ts';
import type { ZipfNodeOptions, ZipfNodeResult } from '../programs/zipf-node.ts';
import { pgBouncerVersion, startPgBouncer, type PgBouncer } from '../pgbouncer.ts';
import { scaled, type Bench, type Line, type Row } from '../row.ts';
import { NO_JOB, openBenchFleet, READ_SQL, type BenchFleet } from '../tenant-fleet.ts';
import { zipfPicker } from '../zipf.ts';

const TENANTS = 1_000;
const IN_FLIGHT = 64;
/** Nobody waits longer for a connection of ours; PgBouncer lets one wait for two minutes unless told otherwise. */
const PATIENCE = { query_wait_timeout: 5 };
/** Processes of results that share the budget. */
const NODES = 3;
const SHARED_ROLE = 'bench_shared';

/** One read of one tenant. */
type Reader = (route: Route) => Promise<unknown>;

/** A thousand organizations of which a few ask most, on one server with 80 connections for them. */
export const zipfTenants: Row = {
  name: 'zipf-tenants',
  async run(bench) {
    const size = Number(process.env['BENCH_TENANTS'] ?? scaled(bench, TENANTS, 50));
    const fleet = await openBenchFleet(bench, size);
    try {
      return await measure(bench, fleet);
    } finally {
      await fleet.close();
    }
  },
};

async function measure(bench: Bench, fleet: BenchFleet): Promise<Line[]> {
  const { routes } = fleet;
  const tenants = await fleet.open();
  const read: Reader = ({ orgId }) => tenants.read(orgId, (tx) => tx.query(READ_SQL, [NO_JOB]));
  // The first time opens the tenants, which is not what is measured.
  for (const route of routes) await read(route);
  const backends = watchBackends(fleet);
  const ours = new Load(routes, read, bench);
  const connecting = new Load(routes, connectPerRequest, bench);
  const rounds = scaled(bench, 4, 1);
  const onRound = (against: string) => (round: number) => bench.progress(`against ${against}, round ${round}`);
  // Of these rounds alone every backend in the tenants' databases is counted: a pooler keeps its own there between its rounds.
  const alone: Sampler = (round) => backends.alone(() => ours.sample(round));
  const against = await interleave(rounds, { ours: alone, floor: connecting.sample }, onRound('connecting'));
  const lines: Line[] = [{ name: 'zipf-tenants', unit: 'reads/s', target: { of: 'ratio', atLeast: 2.5 }, ...against }];
  const version = pgBouncerVersion();
  const notes: Record<string, unknown> = { tenants: routes.length, in_flight: IN_FLIGHT, pgbouncer: version ?? 'none' };
  if (version !== undefined) {
    const shared = await sharedRole(fleet);
    // One user for all databases is the one way to give PgBouncer a cap over them.
    const pooler = await poolers(fleet, shared, { max_user_connections: BUDGET, default_pool_size: 10 });
    const peer = new Load(routes, pooler.read, bench);
    const samples = await interleave(rounds, { ours: ours.sample, floor: peer.sample }, onRound('PgBouncer'));
    await pooler.close();
    lines.push({ name: 'zipf-pgbouncer', unit: 'reads/s', target: { of: 'ratio', atLeast: 1.3 }, ...samples });
    notes['pgbouncer_shared_role_errors'] = peer.share();
  }
  const most = await backends.stop();
  notes['samples'] = most.samples;
  await tenants.close();
  lines.push(...(await severalNodes(bench, fleet)));

  bench.progress('peers that know no cap');
  if (version !== undefined) {
    const own = await poolers(fleet, undefined, { default_pool_size: 10 });
    const peer = new Load(routes, own.read, bench);
    await peer.sample(1);
    await own.close();
    notes['pgbouncer_role_per_tenant_errors'] = peer.share();
  }
  for (const [name, naive] of Object.entries({ naive_pools: naivePools(), naive_typeorm: naiveDataSources() })) {
    const peer = new Load(routes, naive.read, bench);
    await peer.sample(1);
    await naive.close();
    notes[`${name}_errors`] = peer.share();
  }
  notes['connect_per_request_errors'] = connecting.share();
  return [
    ...lines.map((line) => ({ ...line, notes })),
    { name: 'zipf-errors', unit: 'errors', target: { of: 'value', atMost: 0 }, ours: [ours.errors], notes },
    ...backendLines('zipf', most, notes),
  ];
}

/** Zipf traffic on one way to the tenants. */
class Load {
  errors = 0;
  #calls = 0;
  readonly #read: Reader;
  readonly #durationMs: number;
  readonly #any: () => Route;

  constructor(routes: Route[], read: Reader, bench: Bench) {
    this.#read = read;
    this.#durationMs = scaled(bench, 4 * SECOND_MS, SECOND_MS);
    this.#any = zipfPicker(routes);
  }

  /** Reads that were answered, per second. */
  readonly sample: Sampler = async () => {
    const start = performance.now();
    const end = start + this.#durationMs;
    let answered = 0;
    const client = async (): Promise<void> => {
      while (performance.now() < end) {
        this.#calls += 1;
        const done = await this.#read(this.#any()).then(
          () => true,
          () => false,
        );
        if (done) answered += 1;
        else this.errors += 1;
      }
    };
    await Promise.all(Array.from({ length: IN_FLIGHT }, client));
    return (answered / (performance.now() - start)) * SECOND_MS;
  };

  /** Errors, e.g. `3.1 %`. */
  share(): string {
    return `${((100 * this.errors) / Math.max(1, this.#calls)).toFixed(1)} %`;
  }
}

/** Processes with a share each of the one budget, all at once. */
async function severalNodes(bench: Bench, fleet: BenchFleet): Promise<Line[]> {
  const { system, routes } = fleet;
  bench.progress(`${NODES} processes share the budget`);
  const backends = watchBackends(fleet);
  const options: ZipfNodeOptions = {
    port: system.ports.provisioner,
    privateJwk: system.secrets.signingKeys.results.privateJwk,
    orgIds: routes.map(({ orgId }) => orgId),
    inFlight: IN_FLIGHT,
    durationMs: scaled(bench, 10 * SECOND_MS, 5 * SECOND_MS),
  };
  const results = await backends.alone(() =>
    Promise.all(
      Array.from({ length: NODES }, async () => {
        const program = await startProgram<ZipfNodeResult>('zipf-node', [JSON.stringify(options)]);
        await program.stop();
        return program.ready;
      }),
    ),
  );
  const most = await backends.stop();
  const errors = results.reduce((sum, one) => sum + one.errors, 0);
  const readsPerSecond = results.map((one) => Math.round(one.readsPerSecond));
  const notes = { processes: NODES, reads_per_second: readsPerSecond, samples: most.samples };
  return [
    { name: 'zipf-nodes-errors', unit: 'errors', target: { of: 'value', atMost: 0 }, ours: [errors], notes },
    ...backendLines('zipf-nodes', most, notes),
  ];
}

async function connectPerRequest({ host, port, user, password, database }: Route): Promise<void> {
  const client = new pg.Client({ host, port, user, password, database });
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.query(READ_SQL, [NO_JOB]);
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** A pool for each tenant, made on first use and never given up: the sketch that everybody begins with. */
function naivePools(to: Partial<pg.PoolConfig> = {}): { read: Reader; close(): Promise<void> } {
  const pools = new Map<string, pg.Pool>();
  return {
    async read({ orgId, host, port, user, password, database }) {
      let pool = pools.get(orgId);
      if (pool === undefined) {
        pool = new pg.Pool({ host, port, user, password, database, max: 10, idleTimeoutMillis: 0, ...to });
        pool.on('error', () => undefined);
        pools.set(orgId, pool);
      }
      await pool.query(READ_SQL, [NO_JOB]);
    },
    async close() {
      await Promise.all([...pools.values()].map((pool) => pool.end()));
    },
  };
}

/** The same with TypeORM: a DataSource for each tenant. */
function naiveDataSources(): { read: Reader; close(): Promise<void> } {
  const sources = new Map<string, Promise<DataSource>>();
  return {
    async read({ orgId, host, port, user: username, password, database }) {
      let source = sources.get(orgId);
      if (source === undefined) {
        const to = { host, port, username, password, database };
        source = new DataSource({ type: 'postgres', ...to, extra: { max: 10, idleTimeoutMillis: 0 } }).initialize();
        sources.set(orgId, source);
        // Whoever asks again tries again.
        source.catch(() => sources.delete(orgId));
      }
      await (await source).query(READ_SQL, [NO_JOB]);
    },
    async close() {
      // Those that could not be opened are not in the map any more.
      await Promise.all([...sources.values()].map(async (source) => (await source).destroy()));
    },
  };
}

type Login = { user: string; password: string };

/** A pool for each tenant at a PgBouncer, whose connections cost it little. */
async function poolers({ system, routes }: BenchFleet, shared: Login | undefined, settings: Record<string, number>) {
  const users = shared === undefined ? routes : [shared];
  const bouncer: PgBouncer = await startPgBouncer({
    upstreamPort: system.place.port,
    users,
    settings: { ...PATIENCE, ...settings },
  });
  const naive = naivePools({ port: bouncer.port, ...shared });
  return {
    read: naive.read,
    async close() {
      await naive.close();
      await bouncer.stop();
    },
  };
}

/** A login that may read every tenant: what a pooler's cap asks for, and what walls between tenants forbid. */
async function sharedRole({ admin, routes }: BenchFleet): Promise<Login> {
  const login = { user: SHARED_ROLE, password: 'only-for-this-bench' };
  await admin.query(`CREATE ROLE ${login.user} LOGIN PASSWORD '${login.password}' IN ROLE mad_results_app`);
  for (const { database } of routes) await admin.query(`GRANT CONNECT ON DATABASE ${database} TO ${login.user}`);
  return login;
}
