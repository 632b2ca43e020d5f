import { defineMigration, REPORTING_READER } from '@mad/postgres';

const states = ['pending', 'queued', 'running', 'completed', 'failed', 'cancelled'];

/**
 * Read-only views across the metadata schemas, for people with SQL. They run with the rights of their owner, which sees
 * past row-level security and holds no more than the columns that each service has shown it.
 */
export const Views = defineMigration(import.meta.url, {
  up: `
CREATE VIEW reporting.organizations AS
  SELECT org_id, name, slug, status, region, quotas, created_at, updated_at FROM identity.organizations;
COMMENT ON VIEW reporting.organizations IS 'Every organization. Confidential: names and slugs of customers';

CREATE VIEW reporting.jobs_meta AS
  SELECT job_id, org_id, pipeline_id, pipeline_version_id, molecule_set_id, status, priority, cache_policy, requested,
    cached, scored, failed, skipped, cancelled, pending, event_seq, created_at, updated_at, admitted_at, materialized_at,
    cancel_requested_at, ended_at
  FROM catalog.jobs_meta;
COMMENT ON VIEW reporting.jobs_meta IS 'Every organization''s jobs, without names, labels and parameters';

CREATE VIEW reporting.organization_summary AS
  SELECT o.org_id, o.name AS org_name, o.slug, o.status, coalesce(j.total_jobs, 0) AS total_jobs,
    ${states.map((state) => `coalesce(j.${state}_jobs, 0) AS ${state}_jobs`).join(',\n    ')},
    o.quotas->>'max_concurrent_jobs' AS job_limit,
    coalesce(u.molecules, 0) AS molecules, coalesce(u.artifact_bytes, 0) AS artifact_bytes,
    (SELECT count(*) FROM identity.memberships m WHERE m.org_id = o.org_id) AS members,
    (SELECT count(*) FROM identity.tokens t WHERE t.org_id = o.org_id AND NOT t.revoked AND t.expires_at > now()) AS tokens,
    t.database_name, t.state AS database_state, t.schema_version
  FROM identity.organizations o
  LEFT JOIN (
    SELECT org_id, count(*) AS total_jobs,
      ${states.map((state) => `count(*) FILTER (WHERE status = '${state}') AS ${state}_jobs`).join(',\n      ')}
    FROM catalog.jobs_meta GROUP BY org_id) j ON j.org_id = o.org_id
  LEFT JOIN catalog.org_usage u ON u.org_id = o.org_id
  LEFT JOIN provisioner.tenants t ON t.org_id = o.org_id AND t.schema = 'results';
COMMENT ON VIEW reporting.organization_summary IS 'Every organization at a glance: jobs by state, what it uses, its results database';

GRANT USAGE ON SCHEMA reporting TO ${REPORTING_READER};
GRANT SELECT ON reporting.organizations, reporting.jobs_meta, reporting.organization_summary TO ${REPORTING_READER};
`,
  down: `
DROP VIEW reporting.organization_summary;
DROP VIEW reporting.jobs_meta;
DROP VIEW reporting.organizations;
REVOKE USAGE ON SCHEMA reporting FROM ${REPORTING_READER};
`,
});
