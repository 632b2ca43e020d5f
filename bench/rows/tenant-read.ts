import type { Row } from '../row.ts';
import { measureRead } from '../tenant-rows.ts';

const SQL = `SELECT job_id, status, requested, scored, failed, pending, event_seq, created_at, ended_at
  FROM results.jobs WHERE job_id = $1`;

/** The hot read of a tenant: routed, budgeted, fenced, in SQL. */
export const tenantRead: Row = {
  name: 'tenant-read',
  run: (bench) =>
    measureRead(bench, {
      name: 'tenant-read',
      target: { of: 'ratio', atLeast: 0.6 },
      sql: SQL,
      read: ({ tenants, route }, jobId) => tenants.read(route.orgId, async (tx) => (await tx.query(SQL, [jobId]))[0]),
    }),
};
