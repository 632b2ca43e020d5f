import { catalogMigrations, openCatalogDatabase } from '@mad/catalog';
import { createMetadataDatabase, defineMigration, migrate, MIGRATOR, rlsSql, type Database } from '@mad/postgres';
import type pg from 'pg';
import { urlOf } from '../../apps/local/src/environment.ts';
import { claimTasks } from '../../services/catalog/src/jobs/claim.ts';
import { interleave } from '../measure.ts';
import { scaled, type Bench, type Line, type Row } from '../row.ts';
import type { BenchSystem } from '../system.ts';

const ORGANIZATIONS = 100;
const TASKS = 100_000;
const CLAIMERS = 4;
const LEASE_MS = 60_000;
const ENGINE = 'rdkit@bench';
const DATABASE = 'bench_claims';
/** More than anybody takes: neither a quota nor a worker's size is what limits here. */
const PLENTY = 1_000_000;

/** A queue without organizations: the same columns, its own best index, the same row-level security. */
const NaiveQueue = defineMigration('2099_01_01_0000_naive_queue.ts', {
  up: `CREATE TABLE catalog.naive_queue (LIKE catalog.task_queue INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
      WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
    ALTER TABLE catalog.naive_queue ADD PRIMARY KEY (task_execution_id);
    CREATE INDEX ON catalog.naive_queue (priority DESC, task_execution_id) WHERE state = 'ready';
    CREATE INDEX ON catalog.naive_queue (job_id);
    CREATE INDEX ON catalog.naive_queue (coalesce(lease_expires_at, not_before)) WHERE state IN ('leased', 'delayed');
    ${rlsSql({ schema: 'catalog', table: 'naive_queue', systemMay: true })}`,
  down: 'DROP TABLE catalog.naive_queue',
});

/** $1 engines, $2 tasks wanted, $3 worker, $4 lease in ms. */
const NAIVE_SQL = `
  UPDATE catalog.naive_queue t SET state = 'leased', attempt = t.attempt + 1, worker = $3,
    lease_expires_at = now() + $4 * interval '1 ms'
  FROM (SELECT task_execution_id FROM catalog.naive_queue WHERE state = 'ready' AND engine = ANY ($1::text[])
        ORDER BY priority DESC, task_execution_id LIMIT $2 FOR UPDATE SKIP LOCKED) pick
  WHERE t.task_execution_id = pick.task_execution_id
  RETURNING t.org_id, t.job_id, t.task_execution_id, t.attempt, t.engine, t.cores, t.memory_mb, t.lease_expires_at`;

/** 100 organizations of the same weight, the first of which holds half of the tasks. */
const SEED_SQL = (tasks: number): string => `
  CREATE TEMPORARY TABLE orgs AS SELECT n, gen_random_uuid() AS org_id, gen_random_uuid() AS job_id,
      gen_random_uuid() AS set_id,
      CASE n WHEN 1 THEN ${tasks / 2} ELSE ${Math.floor(tasks / 2 / (ORGANIZATIONS - 1))} END AS tasks
    FROM generate_series(1, ${ORGANIZATIONS}) n;
  INSERT INTO catalog.molecule_sets (org_id, molecule_set_id, created_by) SELECT org_id, set_id, org_id FROM orgs;
  INSERT INTO catalog.jobs_meta (org_id, job_id, pipeline_id, pipeline_version_id, molecule_set_id, parameters, plan,
      input_count, planned_tasks, created_by)
    SELECT org_id, job_id, job_id, job_id, set_id, '{}', '[]', tasks, tasks, org_id FROM orgs;
  INSERT INTO catalog.org_queue (org_id, queued, max_running, max_concurrent_jobs)
    SELECT org_id, tasks, ${PLENTY}, 1 FROM orgs;
  INSERT INTO catalog.org_queue_depth (org_id, engine, cores, memory_mb, queued)
    SELECT org_id, '${ENGINE}', 1, 256, tasks FROM orgs;
  INSERT INTO catalog.task_queue (task_execution_id, org_id, job_id, engine, cores, memory_mb)
    SELECT gen_random_uuid(), org_id, job_id, '${ENGINE}', 1, 256 FROM orgs, generate_series(1, tasks);
  INSERT INTO catalog.naive_queue SELECT * FROM catalog.task_queue;
  DROP TABLE orgs`;

/** Everything that was claimed is ready again; the clocks go on. */
const RESET_SQL = `
  WITH back AS (
    UPDATE catalog.task_queue SET state = 'ready', worker = NULL, lease_expires_at = NULL
    WHERE state = 'leased' RETURNING org_id
  ), counted AS (SELECT org_id, count(*)::int AS n FROM back GROUP BY org_id), depths AS (
    UPDATE catalog.org_queue_depth d SET queued = d.queued + n FROM counted c WHERE c.org_id = d.org_id
  )
  UPDATE catalog.org_queue q SET queued = q.queued + n, running = q.running - n FROM counted c WHERE c.org_id = q.org_id;
  UPDATE catalog.naive_queue SET state = 'ready', worker = NULL, lease_expires_at = NULL WHERE state = 'leased'`;
const TABLES = 'catalog.task_queue, catalog.naive_queue, catalog.org_queue, catalog.org_queue_depth';

/** What one side took: per organization, and how fast. */
type Claimer = (worker: string, n: number) => Promise<{ org_id: string }[]>;

/** The queue's claim, fair between organizations, against one that takes whatever is first. */
export const fairClaim: Row = {
  name: 'fair-claim',
  async run(bench) {
    const system = await bench.system();
    const database = await openQueue(system);
    const admin = await system.admin(DATABASE);
    try {
      bench.progress('filling the queue');
      await admin.query(SEED_SQL(scaled(bench, TASKS, 20_000)));
      const lines = [await claims(bench, database, admin, 1), await claims(bench, database, admin, 20)];
      const served = lines.map(({ notes }) => Number(notes!['most_over_least']));
      const fairness: Line = {
        name: 'fair-claim-served',
        unit: 'most/least',
        target: { of: 'value', atMost: 1.2 },
        // The worse of the two decides.
        ours: [Math.max(...served)],
      };
      return [...lines, fairness];
    } finally {
      await admin.end();
      await database.close();
    }
  },
};

/** A metadata database of its own on the same server: nobody else reaps, reconciles or leases there. */
async function openQueue({ adminUrl, place, secrets }: BenchSystem): Promise<Database> {
  await createMetadataDatabase(adminUrl, { database: DATABASE, services: ['catalog'] });
  const here = { ...place, database: DATABASE };
  const { migrator, services } = secrets.passwords;
  const url = urlOf(here, MIGRATOR, migrator);
  const migrations = [...catalogMigrations, NaiveQueue];
  await migrate({ url, ownerRole: 'mad_catalog_owner', schema: 'catalog', migrations });
  return openCatalogDatabase({
    url: urlOf(here, 'mad_catalog', services.catalog.app),
    systemUrl: urlOf(here, 'mad_catalog_system', services.catalog.system),
    systemPoolSize: CLAIMERS,
  });
}

/** Claims per second of `n` tasks at a time, by several workers at once; both sides in the same kind of transaction. */
async function claims(bench: Bench, database: Database, admin: pg.Client, n: number): Promise<Line> {
  const fair: Claimer = (worker, wanted) => {
    const claim = { worker, engines: [ENGINE], maxTasks: wanted, freeCores: PLENTY, freeMemoryMb: PLENTY };
    return database.asSystem((tx) => claimTasks(tx, claim, LEASE_MS));
  };
  const naive: Claimer = (worker, wanted) =>
    database.asSystem((tx) => tx.query(NAIVE_SQL, [[ENGINE], wanted, worker, LEASE_MS]));
  const served = { ours: new Map<string, number>(), floor: new Map<string, number>() };
  // At 20 a time so few that no small organization runs out: then nobody could be fair.
  const wanted = scaled(bench, n === 1 ? 1_000 : 200, 100);

  const sample = async (side: 'ours' | 'floor', claim: Claimer): Promise<number> => {
    await admin.query(RESET_SQL);
    await admin.query(`VACUUM ANALYZE ${TABLES}`);
    let left = wanted;
    const start = performance.now();
    const work = async (worker: string): Promise<void> => {
      while (left > 0) {
        left -= 1;
        const rows = await claim(worker, n);
        if (rows.length === 0) left += 1;
        for (const { org_id: org } of rows) served[side].set(org, (served[side].get(org) ?? 0) + 1);
      }
    };
    await Promise.all(Array.from({ length: CLAIMERS }, (_, index) => work(`worker-${index}`)));
    return (wanted / (performance.now() - start)) * 1000;
  };
  const samples = await interleave(
    scaled(bench, 9, 2),
    { ours: () => sample('ours', fair), floor: () => sample('floor', naive) },
    (round) => bench.progress(`${n} at a time, round ${round}`),
  );
  const notes = {
    claimers: CLAIMERS,
    claims_per_round: wanted,
    most_over_least: mostOverLeast(served.ours),
    naive_most_over_least: mostOverLeast(served.floor),
  };
  const target = { of: 'ratio', atLeast: 0.7 } as const;
  return { name: `fair-claim-${n}`, unit: 'claims/s', target, ...samples, notes };
}

/** Infinity, written `null` in JSON, when somebody got nothing at all. */
function mostOverLeast(served: ReadonlyMap<string, number>): number {
  const counts = [...served.values()];
  return counts.length < ORGANIZATIONS ? Infinity : Math.max(...counts) / Math.min(...counts);
}
