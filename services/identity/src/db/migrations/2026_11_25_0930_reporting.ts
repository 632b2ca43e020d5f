import { defineMigration, REPORTING } from '@mad/postgres';

/** What identity shows of itself to the reporting views: organizations, and who belongs to which, by ids. */
export const Reporting = defineMigration(import.meta.url, {
  up: `
GRANT SELECT (org_id, name, slug, status, region, quotas, created_at, updated_at) ON identity.organizations TO ${REPORTING};
GRANT SELECT (org_id, user_id) ON identity.memberships TO ${REPORTING};
GRANT SELECT (org_id, revoked, expires_at) ON identity.tokens TO ${REPORTING};
`,
  down: `
REVOKE SELECT (org_id, revoked, expires_at) ON identity.tokens FROM ${REPORTING};
REVOKE SELECT (org_id, user_id) ON identity.memberships FROM ${REPORTING};
REVOKE SELECT (org_id, name, slug, status, region, quotas, created_at, updated_at) ON identity.organizations FROM ${REPORTING};
`,
});
