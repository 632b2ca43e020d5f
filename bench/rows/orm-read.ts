import { JobEntity } from '../../services/results/src/db/entities/job.ts';
import type { Row } from '../row.ts';
import { measureRead } from '../tenant-rows.ts';

const COLUMNS = Object.keys(JobEntity.options.columns).join(', ');

/** The same read by TypeORM's repository, every column of the row on both sides. */
export const ormRead: Row = {
  name: 'orm-read',
  run: (bench) =>
    measureRead(bench, {
      name: 'orm-read',
      target: { of: 'ratio', atLeast: 0.35 },
      sql: `SELECT ${COLUMNS} FROM results.jobs WHERE job_id = $1`,
      read: ({ tenants, route }, jobId) =>
        tenants.read(route.orgId, (tx) => tx.repository(JobEntity).findOneBy({ job_id: jobId })),
    }),
};
