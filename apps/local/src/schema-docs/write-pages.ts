import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startEmbeddedPostgres } from '@mad/embedded-postgres';
import { bootstrapServer, bootstrapTenantServer, MIGRATOR } from '@mad/postgres';
import { migrateMetadata, type Log } from '../databases.ts';
import { METADATA_SERVICES } from '../secrets.ts';
import { makeResultsDatabase, schemaPages } from './documented.ts';

const DATABASE = 'mad_metadata';
const RESULTS = 'mad_results_docs';

/** The pages as the migrations have them, from a Postgres server that lives for this alone. */
async function freshPages(log: Log): Promise<Map<string, string>> {
  const dataDir = await mkdtemp(join(tmpdir(), 'mad-schema-docs-'));
  log('starting a Postgres for this alone');
  const postgres = await startEmbeddedPostgres({ dataDir, settings: { fsync: 'off' } });
  try {
    const password = () => randomBytes(18).toString('base64url');
    const migratorPassword = password();
    const services = Object.fromEntries(
      METADATA_SERVICES.map((service) => [service, { app: password(), system: password() }]),
    );
    await bootstrapServer(postgres.adminUrl, { services, migratorPassword, database: DATABASE });
    const tenants = { provisionerPassword: password(), migratorPassword, schema: 'results' };
    await bootstrapTenantServer(postgres.adminUrl, tenants);
    const migrator = new URL(postgres.adminUrl);
    migrator.username = MIGRATOR;
    migrator.password = migratorPassword;
    migrator.pathname = `/${DATABASE}`;
    log('running every migration');
    await migrateMetadata(migrator.href, () => undefined);
    await makeResultsDatabase({ adminUrl: postgres.adminUrl, migratorUrl: migrator.href }, RESULTS);
    log('reading the catalogs');
    const at = (database: string): string =>
      Object.assign(new URL(postgres.adminUrl), { pathname: `/${database}` }).href;
    return await schemaPages({ metadata: at(DATABASE), results: at(RESULTS) });
  } finally {
    await postgres.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

/** The names of the pages in a folder that are missing or say something else. */
export async function stalePages(folder: string, pages: ReadonlyMap<string, string>): Promise<string[]> {
  const stale: string[] = [];
  for (const [name, text] of pages) {
    const present = await readFile(join(folder, name), 'utf8').catch(() => undefined);
    if (present !== text) stale.push(name);
  }
  return stale;
}

/** Writes the schema's pages into a folder, or with `check` only compares. Answers the names of those that differed. */
export async function writeSchemaPages(folder: string, options: { check: boolean; log: Log }): Promise<string[]> {
  const pages = await freshPages(options.log);
  const stale = await stalePages(folder, pages);
  if (options.check) return stale;
  await mkdir(folder, { recursive: true });
  for (const name of stale) await writeFile(join(folder, name), pages.get(name)!);
  return stale;
}
