import { defineMigration, REPORTING } from '@mad/postgres';

/** What the provisioner shows of itself to the reporting views: which databases there are, and how they stand. */
export const Reporting = defineMigration(import.meta.url, {
  up: `GRANT SELECT (org_id, schema, database_name, state, schema_version, created_at) ON provisioner.tenants TO ${REPORTING};`,
  down: `REVOKE SELECT (org_id, schema, database_name, state, schema_version, created_at) ON provisioner.tenants FROM ${REPORTING};`,
});
