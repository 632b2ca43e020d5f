import type { OwnedRows, Statements } from '@mad/postgres';

const OWN = 't.org_id = $org';
const IN_SET_OF_JOB =
  'EXISTS (SELECT FROM catalog.jobs_meta j WHERE j.org_id = t.org_id AND j.molecule_set_id = t.molecule_set_id)';
// Anybody's job: a pipeline may be public.
const OF_JOB = 'EXISTS (SELECT FROM catalog.jobs_meta j WHERE j.pipeline_id = t.pipeline_id)';

/**
 * What of an organization comes back from an archive of the metadata. Jobs and artifacts are facts that happened: the ones
 * that are there stay, and so does what jobs since the archive need. The queue is left out: what it held is done or lost.
 */
export const catalogOrganizationRows: OwnedRows = {
  schema: 'catalog',
  tables: [
    {
      name: 'molecules',
      key: ['org_id', 'molecule_id'],
      whose: OWN,
      rule: 'equal',
      needed: `EXISTS (SELECT FROM catalog.molecule_set_members m WHERE m.org_id = t.org_id AND m.molecule_id = t.molecule_id)`,
    },
    {
      name: 'molecule_sets',
      key: ['org_id', 'molecule_set_id'],
      whose: OWN,
      rule: 'equal',
      needed: IN_SET_OF_JOB,
    },
    {
      name: 'molecule_set_members',
      key: ['org_id', 'molecule_set_id', 'item_no'],
      whose: OWN,
      rule: 'equal',
      needed: IN_SET_OF_JOB,
    },
    { name: 'artifacts', key: ['org_id', 'artifact_id'], whose: OWN, rule: 'missing' },
    { name: 'task_definitions', key: ['task_definition_id'], whose: OWN, rule: 'equal' },
    { name: 'pipelines', key: ['pipeline_id'], whose: OWN, rule: 'equal', needed: OF_JOB },
    {
      name: 'pipeline_versions',
      key: ['pipeline_version_id'],
      whose: OWN,
      rule: 'equal',
      needed: OF_JOB,
    },
    // One that had not ended has tasks in the queue, which are not archived with a meaning.
    { name: 'jobs_meta', key: ['job_id'], whose: `${OWN} AND t.ended_at IS NOT NULL`, rule: 'missing' },
  ],
};

/** Organization tables of catalog that no archive brings back, and why. */
export const CATALOG_LEFT_OUT: Readonly<Record<string, string>> = {
  org_usage: 'counted anew',
  org_queue: 'the present queue is what counts',
  org_queue_depth: 'the present queue is what counts',
  task_queue: 'the present queue is what counts',
  idempotency_keys: 'answers of requests of one day',
  erasures: 'what is erased stays erased',
};

/** Counts anew what the organization uses, in the transaction that put its rows back. */
export async function countCatalogUsage(tx: Pick<Statements, 'query'>, orgId: string): Promise<void> {
  // Whoever uses more meanwhile waits for this row, and adds to what was counted.
  await tx.query(
    `INSERT INTO catalog.org_usage AS u (org_id) VALUES ($1) ON CONFLICT (org_id) DO UPDATE SET molecules = u.molecules`,
    [orgId],
  );
  await tx.query(
    `UPDATE catalog.org_usage u SET
       molecules = (SELECT count(*) FROM catalog.molecules m WHERE m.org_id = $1),
       artifact_bytes = (SELECT coalesce(sum(a.size_bytes), 0) FROM catalog.artifacts a WHERE a.org_id = $1)
     WHERE u.org_id = $1`,
    [orgId],
  );
}
