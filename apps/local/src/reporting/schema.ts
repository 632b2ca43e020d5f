import { migrate, REPORTING, type MigrationClass } from '@mad/postgres';
import { Views } from './migrations/2026_11_25_0931_views.ts';
import { Usage } from './migrations/2026_11_25_1114_usage.ts';

/** The schema of the views that join across the metadata schemas. */
export const REPORTING_SCHEMA = 'reporting';

/** The schema's trail, in order. It runs after the trails of the schemas it reads. */
export const reportingMigrations: readonly MigrationClass[] = [Views, Usage];

/** Brings schema reporting up to date; `url` is the migrator's login. Returns the names of the migrations that ran. */
export function migrateReporting(options: { url: string; log?: (message: string) => void }): Promise<string[]> {
  return migrate({ ...options, schema: REPORTING_SCHEMA, ownerRole: REPORTING, migrations: reportingMigrations });
}
