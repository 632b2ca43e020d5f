import { createLogger } from '@mad/process';
import type { Route } from '@mad/proto/provisioner';
import { resultsEntities } from '@mad/results';
import { openTenants, type Tenants } from '@mad/tenancy';
import pg from 'pg';
import { ratePerSecond, interleave } from './measure.ts';
import { scaled, type Bench, type Line, type Target } from './row.ts';
import { SCHEMA, type BenchSystem } from './system.ts';

const JOBS = 1_000;
const IN_FLIGHT = 32;
/** Of either side: what a tenant may have. */
const CONNECTIONS = 10;

/** One tenant with jobs in it. */
interface ReadPlace {
  tenants: Tenants;
  route: Route;
  jobIds: string[];
}

async function addJobs(system: BenchSystem, { database }: Route): Promise<string[]> {
  const admin = await system.admin(database);
  try {
    const { rows } = await admin.query<{ job_id: string }>(
      `INSERT INTO results.jobs (pipeline_version_id, status, input_signature, params, requested, scored, created_by, ended_at)
       SELECT gen_random_uuid(), 'completed', repeat('ab', 32), '{"reference": "CCO", "top": 100}', 100, 100,
         gen_random_uuid()::text, now()
       FROM generate_series(1, ${JOBS}) RETURNING job_id`,
    );
    await admin.query('VACUUM ANALYZE results.jobs');
    return rows.map((row) => row.job_id);
  } finally {
    await admin.end();
  }
}

/** The floor: the same login and the same number of connections in pg's own pool, every statement prepared once. */
function rawPool({ host, port, user, password, database }: Route): pg.Pool {
  return new pg.Pool({ host, port, user, password, database, max: CONNECTIONS });
}

/** Reads per second of one job by its id, 32 in flight: ours against `sql` on raw pg. */
export async function measureRead(
  bench: Bench,
  line: { name: string; target: Target; sql: string; read: (place: ReadPlace, jobId: string) => Promise<unknown> },
): Promise<Line[]> {
  const system = await bench.system();
  const route = await system.newTenant();
  const jobIds = await addJobs(system, route);
  const tenants = await openTenants({
    schema: SCHEMA,
    entities: resultsEntities,
    routes: system.transport('provisioner', 'results'),
    node: 'bench',
    poolMax: CONNECTIONS,
    logger: createLogger('bench', { level: 'silent' }),
  });
  const pool = rawPool(route);
  try {
    const place = { tenants, route, jobIds };
    let next = 0;
    const anyJob = (): string => jobIds[(next = (next + 7) % JOBS)]!;
    const load = { inFlight: IN_FLIGHT, durationMs: scaled(bench, 500, 200) };
    const samples = await interleave(scaled(bench, 21, 2), {
      ours: () => ratePerSecond(load, async () => requireOne(await line.read(place, anyJob()))),
      floor: () =>
        ratePerSecond(load, async () => {
          const { rows } = await pool.query({ name: line.name, text: line.sql, values: [anyJob()] });
          requireOne(rows[0]);
        }),
    });
    const notes = { in_flight: IN_FLIGHT, connections: CONNECTIONS };
    return [{ name: line.name, unit: 'reads/s', target: line.target, ...samples, notes }];
  } finally {
    await Promise.all([tenants.close(), pool.end()]);
  }
}

function requireOne(row: unknown): void {
  if (row === undefined || row === null) throw new Error('the job was not found');
}
