import { defineMigration, REPORTING } from '@mad/postgres';

/**
 * What catalog shows of itself to the reporting views: columns without what organizations keep confidential. And the
 * second login counts what organizations use, for the platform's summaries.
 */
export const Reporting = defineMigration(import.meta.url, {
  up: `
GRANT SELECT (job_id, org_id, pipeline_id, pipeline_version_id, molecule_set_id, status, priority, cache_policy, requested,
  cached, scored, failed, skipped, cancelled, pending, event_seq, created_at, updated_at, admitted_at, materialized_at,
  cancel_requested_at, ended_at) ON catalog.jobs_meta TO ${REPORTING};
GRANT SELECT ON catalog.org_usage TO ${REPORTING};
CREATE POLICY org_usage_system ON catalog.org_usage FOR SELECT TO mad_catalog_system USING (true);
`,
  down: `
DROP POLICY org_usage_system ON catalog.org_usage;
REVOKE SELECT ON catalog.org_usage FROM ${REPORTING};
REVOKE SELECT (job_id, org_id, pipeline_id, pipeline_version_id, molecule_set_id, status, priority, cache_policy, requested,
  cached, scored, failed, skipped, cancelled, pending, event_seq, created_at, updated_at, admitted_at, materialized_at,
  cancel_requested_at, ended_at) ON catalog.jobs_meta FROM ${REPORTING};
`,
});
