import { defineMigration, REPORTING_READER } from '@mad/postgres';

/** What every organization used, by month and user. */
export const Usage = defineMigration(import.meta.url, {
  up: `
CREATE VIEW reporting.organization_usage AS
  SELECT j.org_id, o.slug, to_char(j.created_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month, j.created_by AS user_id,
    count(*) AS jobs, sum(j.input_count) AS molecules, sum(j.scored) AS computed, sum(j.cached) AS cached,
    sum(j.failed) AS failed, round(sum(j.core_ms) / 3600000.0, 3) AS core_hours,
    round(sum(j.saved_core_ms) / 3600000.0, 3) AS saved_core_hours
  FROM catalog.jobs_meta j JOIN identity.organizations o ON o.org_id = j.org_id
  GROUP BY j.org_id, o.slug, 3, j.created_by;
COMMENT ON VIEW reporting.organization_usage IS 'What every organization used, by the month (UTC) and the user that submitted the jobs. PII: users'' ids';
GRANT SELECT ON reporting.organization_usage TO ${REPORTING_READER};
`,
  down: `
DROP VIEW reporting.organization_usage;
`,
});
