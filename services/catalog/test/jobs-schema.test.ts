import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { listConstraints } from '@mad/postgres';
import { metadataDatabase, type TestDatabase } from '@mad/testing';
import pg from 'pg';
import { catalogMigrations } from '../src/index.ts';
import { JOB_TABLES } from './job-tables.ts';

let db: TestDatabase;
let admin: pg.Client;

beforeAll(async () => {
  db = await metadataDatabase({ services: [{ schema: 'catalog', migrations: catalogMigrations }] });
  admin = new pg.Client({ connectionString: db.adminUrl });
  await admin.connect();
  await admin.query('SET search_path = catalog, public');
});

afterAll(async () => {
  await admin.end();
  await db.drop();
});

const ORG = '01900000-0000-7000-8000-000000000001';
const ONE = '01900000-0000-7000-8000-000000000003';
const TWO = '01900000-0000-7000-8000-000000000004';
const NOBODY = '01900000-0000-7000-8000-0000000000ff';

const job = (id: string, set: string) =>
  `INSERT INTO jobs_meta (job_id, org_id, pipeline_id, pipeline_version_id, molecule_set_id, parameters, plan, input_count,
     planned_tasks, created_by) VALUES ('${id}', '${ORG}', '${ONE}', '${ONE}', '${set}', '{}', '[]', 1, 1, '${ONE}')`;
const orgQueue = (org: string) =>
  `INSERT INTO org_queue (org_id, max_running, max_concurrent_jobs) VALUES ('${org}', 1, 1)`;
const depth = (org: string) => `INSERT INTO org_queue_depth VALUES ('${org}', 'e@1', 1, 1, 0)`;
const task = (id: string, org: string, jobId: string) =>
  `INSERT INTO task_queue (task_execution_id, org_id, job_id, engine, cores, memory_mb) VALUES ('${id}', '${org}', '${jobId}', 'e@1', 1, 1)`;

/** Rows that are right, for the others to collide with and refer to. */
const GOOD_ROWS = [
  `INSERT INTO molecule_sets (org_id, molecule_set_id, created_by) VALUES ('${ORG}', '${ONE}', '${ONE}')`,
  job(ONE, ONE),
  orgQueue(ORG),
  orgQueue(TWO),
  depth(ORG),
  task(ONE, ORG, ONE),
].join(';');

/** An UPDATE of the right row, or an INSERT beside it, that breaks the constraint of that name and no other. */
const BAD_ROWS: Record<string, string> = {
  jobs_meta_pkey: job(ONE, ONE).replace(`'${ORG}'`, `'${NOBODY}'`),
  // The same organization and id is the same id: the key is what task_queue refers to.
  jobs_meta_org_id_job_id_key: `ALTER TABLE task_queue DROP CONSTRAINT task_queue_job_id_fkey;
    ALTER TABLE jobs_meta DROP CONSTRAINT jobs_meta_pkey; ${job(ONE, ONE)}`,
  jobs_meta_molecule_set_id_fkey: job(TWO, NOBODY),
  jobs_meta_name_check: `UPDATE jobs_meta SET name = repeat('x', 256)`,
  jobs_meta_detail_check: `UPDATE jobs_meta SET detail = repeat('x', 4001)`,
  jobs_meta_priority_check: `UPDATE jobs_meta SET priority = 11`,
  jobs_meta_labels_check: `UPDATE jobs_meta SET labels = '[]'`,
  jobs_meta_parameters_check: `UPDATE jobs_meta SET parameters = '1'`,
  jobs_meta_plan_check: `UPDATE jobs_meta SET plan = '{}'`,
  jobs_meta_cache_policy_check: `UPDATE jobs_meta SET cache_policy = 'sometimes'`,
  jobs_meta_min_confidence_check: `UPDATE jobs_meta SET min_confidence = 1.1`,
  jobs_meta_input_count_check: `UPDATE jobs_meta SET input_count = 0`,
  jobs_meta_planned_tasks_check: `UPDATE jobs_meta SET planned_tasks = 0`,
  jobs_meta_counters_check: `UPDATE jobs_meta SET requested = 2, scored = 1`,
  jobs_meta_event_seq_check: `UPDATE jobs_meta SET event_seq = -1`,
  jobs_meta_materialized_at_check: `UPDATE jobs_meta SET materialized_at = now()`,
  jobs_meta_cancel_requested_by_check: `UPDATE jobs_meta SET cancel_requested_by = created_by`,
  jobs_meta_ended_at_check: `UPDATE jobs_meta SET status = 'completed'`,
  org_queue_pkey: orgQueue(ORG),
  org_queue_queued_check: `UPDATE org_queue SET queued = -1`,
  org_queue_running_check: `UPDATE org_queue SET running = -1`,
  org_queue_max_running_check: `UPDATE org_queue SET max_running = -1`,
  org_queue_max_concurrent_jobs_check: `UPDATE org_queue SET max_concurrent_jobs = -1`,
  org_queue_weight_check: `UPDATE org_queue SET weight = 0`,
  org_queue_vtime_check: `UPDATE org_queue SET vtime = 'NaN'`,
  org_queue_depth_pkey: depth(ORG),
  org_queue_depth_org_id_fkey: depth(NOBODY),
  org_queue_depth_queued_check: `UPDATE org_queue_depth SET queued = -1`,
  task_queue_pkey: task(ONE, ORG, ONE),
  task_queue_job_id_fkey: task(TWO, TWO, ONE),
  task_queue_org_id_fkey: `ALTER TABLE task_queue DROP CONSTRAINT task_queue_job_id_fkey; ${task(TWO, NOBODY, ONE)}`,
  task_queue_engine_check: `UPDATE task_queue SET engine = ''`,
  task_queue_cores_check: `UPDATE task_queue SET cores = 0`,
  task_queue_memory_mb_check: `UPDATE task_queue SET memory_mb = 0`,
  task_queue_priority_check: `UPDATE task_queue SET priority = -11`,
  task_queue_state_check: `UPDATE task_queue SET state = 'lost'`,
  task_queue_attempt_check: `UPDATE task_queue SET attempt = -1, losses = -1`,
  task_queue_losses_check: `UPDATE task_queue SET losses = 1`,
  task_queue_lease_check: `UPDATE task_queue SET state = 'leased'`,
  task_queue_not_before_check: `UPDATE task_queue SET state = 'delayed'`,
};

test('every named constraint refuses a row', async () => {
  const constraints = await listConstraints(db.adminUrl, 'catalog');
  const names = constraints.filter(({ table }) => JOB_TABLES.includes(table)).map(({ name }) => name);
  expect(Object.keys(BAD_ROWS).sort()).toEqual(names.sort());
  await admin.query('BEGIN');
  await admin.query(GOOD_ROWS);
  for (const [name, sql] of Object.entries(BAD_ROWS)) {
    await admin.query('SAVEPOINT before');
    const broken = await admin.query(sql).then(
      () => 'nothing',
      (error: pg.DatabaseError) => error.constraint ?? error.message,
    );
    expect(broken).toBe(name);
    await admin.query('ROLLBACK TO before');
  }
  await admin.query('ROLLBACK');
});

test('what names a person, and what an organization keeps to itself, says so', async () => {
  const { rows } = await admin.query<{ name: string }>(
    `SELECT attrelid::regclass || '.' || attname AS name FROM pg_attribute
     WHERE attrelid = 'jobs_meta'::regclass AND col_description(attrelid, attnum) ~ '^(PII|Confidential): ' ORDER BY attnum`,
  );
  const columns = ['name', 'detail', 'labels', 'parameters', 'plan', 'created_by', 'cancel_requested_by'];
  expect(rows.map(({ name }) => name)).toEqual(columns.map((column) => `jobs_meta.${column}`));
});
