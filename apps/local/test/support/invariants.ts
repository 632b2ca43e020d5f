import pg from 'pg';
import type { Fleet } from './fleet.ts';

/** Runs one query as superuser. */
export async function query<R extends object>(
  fleet: Fleet,
  database: string,
  sql: string,
  values: unknown[] = [],
): Promise<R[]> {
  const client = new pg.Client({ connectionString: fleet.databaseUrl(database) });
  await client.connect();
  try {
    return (await client.query<R & pg.QueryResultRow>(sql, values)).rows;
  } finally {
    await client.end();
  }
}

/**
 * Everything DESIGN §7 promises of one job after any fault, as sentences that are not true: an empty list when all hold.
 * Counters add up; no item is lost, none twice; both databases agree; events have no gap; the queue holds nothing of it.
 */
export async function brokenInvariants(
  fleet: Fleet,
  tenantDatabase: string,
  jobId: string,
  items: number,
): Promise<string[]> {
  const [meta] = await query<Record<string, string>>(
    fleet,
    'mad_metadata',
    'SELECT * FROM catalog.jobs_meta WHERE job_id = $1',
    [jobId],
  );
  const [run] = await query<Record<string, string>>(
    fleet,
    tenantDatabase,
    'SELECT * FROM results.jobs WHERE job_id = $1',
    [jobId],
  );
  const statuses = await query<{ status: string; n: string }>(
    fleet,
    tenantDatabase,
    'SELECT status, count(*) AS n FROM results.task_results WHERE job_id = $1 GROUP BY status',
    [jobId],
  );
  const [numbers] = await query<{ n: string; distinct_items: string }>(
    fleet,
    tenantDatabase,
    'SELECT count(*) AS n, count(DISTINCT (task_id, item_no)) AS distinct_items FROM results.task_results WHERE job_id = $1',
    [jobId],
  );
  const [events] = await query<{ n: string; last: string }>(
    fleet,
    tenantDatabase,
    'SELECT count(*) AS n, coalesce(max(seq_no), 0) AS last FROM results.job_events WHERE job_id = $1',
    [jobId],
  );
  const [drift] = await query<{ n: string }>(
    fleet,
    tenantDatabase,
    `SELECT count(*) AS n FROM (
        SELECT task_id, bin::text AS what, items FROM results.score_histograms WHERE job_id = $1
        UNION ALL SELECT task_id, error_class, items FROM results.failure_counts WHERE job_id = $1) kept
      FULL JOIN (
        SELECT task_id, results.score_bin(score, bin_width)::text AS what, count(*) AS items
        FROM results.task_results JOIN results.job_tasks USING (job_id, task_id)
        WHERE job_id = $1 AND status IN ('scored', 'cached') AND score IS NOT NULL GROUP BY 1, 2
        UNION ALL SELECT task_id, error_class, count(*) FROM results.task_results
        WHERE job_id = $1 AND status = 'failed' GROUP BY 1, 2) counted USING (task_id, what)
      WHERE kept.items IS DISTINCT FROM counted.items`,
    [jobId],
  );
  const [doubled] = await query<{ n: string }>(
    fleet,
    tenantDatabase,
    `SELECT count(*) AS n FROM results.docking_results d JOIN results.task_results t USING (job_id, task_id, item_no)
      WHERE job_id = $1 AND t.status <> 'scored'`,
    [jobId],
  );
  const [queued] = await query<{ n: string }>(
    fleet,
    'mad_metadata',
    'SELECT count(*) AS n FROM catalog.task_queue WHERE job_id = $1',
    [jobId],
  );
  const count = (status: string) => Number(statuses.find((row) => row.status === status)?.n ?? 0);
  const broken: string[] = [];
  const holds = (claim: string, is: boolean) => void (is || broken.push(claim));
  holds('catalog knows the job', meta !== undefined);
  holds('the tenant knows the job', run !== undefined);
  holds(`the tenant has ${items} items, not ${numbers!.n}`, Number(numbers!.n) === items);
  holds('no item twice', numbers!.n === numbers!.distinct_items);
  holds('nothing is pending', count('pending') === 0);
  holds(`both say ${run?.status}, catalog says ${meta?.status}`, run?.status === meta?.status);
  holds(`events are numbered without gap: ${events!.n} up to ${events!.last}`, events!.n === events!.last);
  holds(`histograms and counts of failures are what counting gives, but for ${drift!.n}`, Number(drift!.n) === 0);
  holds(`no pose belongs to an item without a result of its own, but ${doubled!.n}`, Number(doubled!.n) === 0);
  holds(`the queue holds nothing of it: ${queued!.n}`, Number(queued!.n) === 0);
  return broken;
}

/** Databases and roles that belong to no tenant the provisioner knows. */
export async function orphans(fleet: Fleet): Promise<string[]> {
  const known = await query<{ database_name: string }>(
    fleet,
    'mad_metadata',
    "SELECT database_name FROM provisioner.tenants WHERE state NOT IN ('erased')",
  );
  const names = new Set(known.map((row) => row.database_name));
  const databases = await query<{ name: string }>(
    fleet,
    'postgres',
    String.raw`SELECT datname AS name FROM pg_database WHERE datname ~ '^mad_results_[0-9a-f]{32}$'`,
  );
  const roles = await query<{ name: string }>(
    fleet,
    'postgres',
    String.raw`SELECT rolname AS name FROM pg_roles WHERE rolname ~ '^mad_results_[0-9a-f]{32}_[ab]$'`,
  );
  return [
    ...databases.filter(({ name }) => !names.has(name)).map(({ name }) => `database ${name}`),
    ...roles.filter(({ name }) => !names.has(name.replace(/_[ab]$/, ''))).map(({ name }) => `role ${name}`),
  ];
}
