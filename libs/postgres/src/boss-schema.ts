import pg from 'pg';
import { getConstructionPlans, getUninstallPlans } from 'pg-boss';

/** pg-boss wraps its plans in a transaction; ours run in the migration's. */
function withoutTransaction(sql: string): string {
  return sql.replace(/^\s*BEGIN;\s*$/m, '').replace(/^\s*COMMIT;\s*$/m, '');
}

/**
 * SQL for a migration: installs pg-boss's tables in an existing schema owned by the current role. The owner's default
 * privileges open them to the service's logins (`createMetadataDatabase`); `appRoles` adds others.
 */
export function bossInstallSql(schema: string, ...appRoles: string[]): string {
  const grants = appRoles.map((role) => {
    const [target, grantee] = [pg.escapeIdentifier(schema), pg.escapeIdentifier(role)];
    return `GRANT USAGE ON SCHEMA ${target} TO ${grantee};
      GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ${target} TO ${grantee};`;
  });
  return [withoutTransaction(getConstructionPlans(schema, { createSchema: false })), ...grants].join('\n');
}

/** SQL for the same migration's way down. */
export function bossUninstallSql(schema: string): string {
  return withoutTransaction(getUninstallPlans(schema));
}
